// 64-bit ARM's NEON: 4 floats, 32 registers, no masks. vec.h has the meaning of every function.
#pragma once

#include "kernels/vec/common.h"

namespace quadgate {
namespace QG_ISA {

constexpr int kMaxRows = 6, kMostRows = kMaxRows, kRegisters = 32;
constexpr bool kSmallKernels = false;

constexpr size_t ahead_from(int, int rows, int vectors, size_t) { return rows * vectors > 12 ? 0 : kNever; }
template <class Real>
constexpr bool kCopyColumns = false;
template <class Real>
constexpr bool kHalfLines = false;

template <>
struct Vec<float> {
  using Real = float;
  static constexpr int kWidth = 4;
  float32x4_t v;
};
template <>
struct Vec<double> {
  using Real = double;
  static constexpr int kWidth = 2;
  float64x2_t v;
};

using VF = Vec<float>;
using VD = Vec<double>;

QG_INLINE VF load(const float* p) { return {vld1q_f32(p)}; }
QG_INLINE VD load(const double* p) { return {vld1q_f64(p)}; }
QG_INLINE VF load_n(const float* p, int n) {
  float t[4] = {p[0], n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
  return {vld1q_f32(t)};
}
QG_INLINE VD load_n(const double* p, int) { return {vsetq_lane_f64(p[0], vdupq_n_f64(0), 0)}; }
QG_INLINE void store(float* p, VF a) { vst1q_f32(p, a.v); }
QG_INLINE void store(double* p, VD a) { vst1q_f64(p, a.v); }
QG_INLINE void stream(float* p, VF a) { vst1q_f32(p, a.v); }
QG_INLINE void stream(double* p, VD a) { vst1q_f64(p, a.v); }
QG_INLINE void stream_end() {}
QG_INLINE void store_n(float* p, VF a, int n) {
  vst1q_lane_f32(p, a.v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, a.v, 2);
}
QG_INLINE void store_n(double* p, VD a, int) { vst1q_lane_f64(p, a.v, 0); }
QG_INLINE VF set1(float s) { return {vdupq_n_f32(s)}; }
QG_INLINE VD set1(double s) { return {vdupq_n_f64(s)}; }
QG_INLINE VF operator+(VF a, VF b) { return {vaddq_f32(a.v, b.v)}; }
QG_INLINE VD operator+(VD a, VD b) { return {vaddq_f64(a.v, b.v)}; }
QG_INLINE VF operator-(VF a, VF b) { return {vsubq_f32(a.v, b.v)}; }
QG_INLINE VD operator-(VD a, VD b) { return {vsubq_f64(a.v, b.v)}; }
QG_INLINE VF operator*(VF a, VF b) { return {vmulq_f32(a.v, b.v)}; }
QG_INLINE VD operator*(VD a, VD b) { return {vmulq_f64(a.v, b.v)}; }
QG_INLINE VF operator/(VF a, VF b) { return {vdivq_f32(a.v, b.v)}; }
QG_INLINE VD operator/(VD a, VD b) { return {vdivq_f64(a.v, b.v)}; }
QG_INLINE VF root(VF a) { return {vsqrtq_f32(a.v)}; }
QG_INLINE VD root(VD a) { return {vsqrtq_f64(a.v)}; }
QG_INLINE VF fma(VF a, VF b, VF c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
QG_INLINE VD fma(VD a, VD b, VD c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
QG_INLINE VF fnma(VF a, VF b, VF c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
QG_INLINE VD fnma(VD a, VD b, VD c) { return {vfmsq_f64(c.v, a.v, b.v)}; }
QG_INLINE VF min(VF a, VF b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
QG_INLINE VD min(VD a, VD b) { return {vbslq_f64(vcltq_f64(a.v, b.v), a.v, b.v)}; }
QG_INLINE VF max(VF a, VF b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
QG_INLINE VD max(VD a, VD b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
QG_INLINE VF negative_abs(VF a) { return {vnegq_f32(vabsq_f32(a.v))}; }
QG_INLINE VD negative_abs(VD a) { return {vnegq_f64(vabsq_f64(a.v))}; }
QG_INLINE VF with_sign(VF a, VF b) { return {vbslq_f32(vdupq_n_u32(0x80000000u), b.v, a.v)}; }
QG_INLINE VD with_sign(VD a, VD b) { return {vbslq_f64(vdupq_n_u64(0x8000000000000000u), b.v, a.v)}; }
QG_INLINE VF to_exponent(VF a) { return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a.v), 23))}; }
QG_INLINE VD to_exponent(VD a) { return {vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(a.v), 52))}; }
QG_INLINE VF numbers(const unsigned char* p, VF) {
  float t[4] = {float(p[0]), float(p[1]), float(p[2]), float(p[3])};
  return {vld1q_f32(t)};
}
QG_INLINE VD numbers(const unsigned char* p, VD) {
  double t[2] = {double(p[0]), double(p[1])};
  return {vld1q_f64(t)};
}
QG_INLINE VF where_less(VF a, VF b, VF yes, VF no) { return {vbslq_f32(vcltq_f32(a.v, b.v), yes.v, no.v)}; }
QG_INLINE VD where_less(VD a, VD b, VD yes, VD no) { return {vbslq_f64(vcltq_f64(a.v, b.v), yes.v, no.v)}; }

QG_INLINE void interleave(VF a, VF b, VF& low, VF& high) {
  low = {vzip1q_f32(a.v, b.v)};
  high = {vzip2q_f32(a.v, b.v)};
}
QG_INLINE void interleave(VD a, VD b, VD& low, VD& high) {
  low = {vzip1q_f64(a.v, b.v)};
  high = {vzip2q_f64(a.v, b.v)};
}
QG_INLINE VF upper_half(VF a) { return {vcombine_f32(vget_high_f32(a.v), vget_high_f32(a.v))}; }
QG_INLINE VD upper_half(VD a) { return {vdupq_laneq_f64(a.v, 1)}; }
}  // namespace QG_ISA
}  // namespace quadgate
