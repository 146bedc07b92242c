// Measures the peak rates of this machine: fused multiply-adds per second, bytes read per second from each level of the
// memory hierarchy, and the time of one round trip between two cores. Prints JSON.
//
// usage: ceilings [threads] [largest array in MiB]
//
// Every figure is the best of several short runs, since other processes can only make a run slower. The measured
// instructions are inline assembly, so that no compiler can remove one, add one, or spill a register.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
#error "ceilings: x86-64 or AArch64 only"
#endif

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Twelve sums hide the latency of two units (four to six cycles each); with two factors they fit into 16 registers.
#define FOR_TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

// Defines a function of `n` rounds of 12 multiply-adds on vectors of type V with scalars of type S.
#define FMA_LOOP(NAME, TARGET, V, S, BROADCAST, CODE, KIND)                                                     \
  TARGET void NAME(long n) {                                                                                    \
    V b = BROADCAST(S(1)), c = BROADCAST(S(0.5));                                                               \
    V a0 = c, a1 = c, a2 = c, a3 = c, a4 = c, a5 = c, a6 = c, a7 = c, a8 = c, a9 = c, a10 = c, a11 = c;         \
    for (long i = 0; i < n; ++i) {                                                                              \
      FOR_TWELVE(CODE)                                                                                          \
    }                                                                                                           \
    asm volatile("" ::KIND(a0), KIND(a1), KIND(a2), KIND(a3), KIND(a4), KIND(a5), KIND(a6), KIND(a7), KIND(a8), \
                 KIND(a9), KIND(a10), KIND(a11));                                                               \
  }

// Defines a function that reads 512 bytes a round, and prefetches `ahead` bytes further if it is not 0. `bytes` is a
// multiple of 512.
#define READ_LOOP(NAME, TARGET, STEP, LOAD)                                            \
  TARGET void NAME(const char* p, size_t bytes, size_t ahead) {                        \
    for (size_t i = 0; i < bytes; i += 512) {                                          \
      if (ahead != 0) {                                                                \
        for (size_t j = 0; j < 512; j += 64) __builtin_prefetch(p + i + ahead + j);    \
      }                                                                                \
      _Pragma("GCC unroll 32") for (size_t j = 0; j < 512; j += STEP) LOAD(p + i + j); \
    }                                                                                  \
  }

struct Machine {
  const char* isa;
  int lanes;  // of float32
  void (*fma_float)(long);
  void (*fma_double)(long);
  void (*read)(const char*, size_t, size_t);
};

#if defined(__x86_64__)

#define AVX512 __attribute__((target("avx512f"), noinline))
#define AVX2 __attribute__((target("avx2,fma"), noinline))
#define SSE2 __attribute__((noinline))
#define PS(i) asm volatile("vfmadd231ps %1, %2, %0" : "+v"(a##i) : "v"(b), "v"(c));
#define PD(i) asm volatile("vfmadd231pd %1, %2, %0" : "+v"(a##i) : "v"(b), "v"(c));
#define SSE_PS(i) asm volatile("mulps %1, %0\n\taddps %2, %0" : "+x"(a##i) : "x"(b), "x"(c));
#define SSE_PD(i) asm volatile("mulpd %1, %0\n\taddpd %2, %0" : "+x"(a##i) : "x"(b), "x"(c));
FMA_LOOP(fma_float_512, AVX512, __m512, float, _mm512_set1_ps, PS, "v")
FMA_LOOP(fma_double_512, AVX512, __m512d, double, _mm512_set1_pd, PD, "v")
FMA_LOOP(fma_float_256, AVX2, __m256, float, _mm256_set1_ps, PS, "x")
FMA_LOOP(fma_double_256, AVX2, __m256d, double, _mm256_set1_pd, PD, "x")
FMA_LOOP(fma_float_128, SSE2, __m128, float, _mm_set1_ps, SSE_PS, "x")
FMA_LOOP(fma_double_128, SSE2, __m128d, double, _mm_set1_pd, SSE_PD, "x")

// Load into a register without a dependent instruction.
#define LOAD_512(p) asm volatile("vmovaps %0, %%zmm16" ::"m"(*reinterpret_cast<const __m512*>(p)) : "xmm16")
#define LOAD_256(p) asm volatile("vmovaps %0, %%ymm8" ::"m"(*reinterpret_cast<const __m256*>(p)) : "xmm8")
#define LOAD_128(p) asm volatile("movaps %0, %%xmm8" ::"m"(*reinterpret_cast<const __m128*>(p)) : "xmm8")
READ_LOOP(read_512, AVX512, 64, LOAD_512)
READ_LOOP(read_256, AVX2, 32, LOAD_256)
READ_LOOP(read_128, SSE2, 16, LOAD_128)

Machine machine() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return {"avx512", 16, fma_float_512, fma_double_512, read_512};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"avx2", 8, fma_float_256, fma_double_256, read_256};
  }
  return {"sse2", 4, fma_float_128, fma_double_128, read_128};
}

#else

#define NEON __attribute__((noinline))
#define PS(i) asm volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(a##i) : "w"(b), "w"(c));
#define PD(i) asm volatile("fmla %0.2d, %1.2d, %2.2d" : "+w"(a##i) : "w"(b), "w"(c));
FMA_LOOP(fma_float_128, NEON, float32x4_t, float, vdupq_n_f32, PS, "w")
FMA_LOOP(fma_double_128, NEON, float64x2_t, double, vdupq_n_f64, PD, "w")
#define LOAD_128(p) asm volatile("ldr q16, %0" ::"m"(*reinterpret_cast<const float32x4_t*>(p)) : "v16")
READ_LOOP(read_128, NEON, 16, LOAD_128)

Machine machine() { return {"neon", 4, fma_float_128, fma_double_128, read_128}; }

#endif

// Returns the seconds from a common start until the last of `threads` threads has finished `work(index)`.
template <class Work>
double together(int threads, const Work& work) {
  std::atomic<int> waiting{threads};
  std::vector<double> begin(threads), end(threads);
  const auto body = [&](int k) {
    waiting.fetch_sub(1);
    while (waiting.load() > 0) std::this_thread::yield();
    begin[k] = now();
    work(k);
    end[k] = now();
  };
  std::vector<std::thread> others;
  for (int k = 1; k < threads; ++k) others.emplace_back(body, k);
  body(0);
  for (auto& other : others) other.join();
  double first = begin[0], last = end[0];
  for (int k = 1; k < threads; ++k) {
    first = begin[k] < first ? begin[k] : first;
    last = end[k] > last ? end[k] : last;
  }
  return last - first;
}

// Returns GFLOP/s, the sum of all threads.
double fma_peak(void (*loop)(long), int lanes, int threads) {
  const long rounds = 1 << 19;  // some milliseconds
  double best = 0;
  for (int run = 0; run < 12; ++run) {
    const double rate = 12e-9 * rounds * 2 * lanes * threads / together(threads, [&](int) { loop(rounds); });
    best = rate > best ? rate : best;
  }
  return best;
}

// Allocates `bytes` in 2 MiB pages if possible, aligned to 2 MiB; never freed.
char* memory(size_t bytes) {
  const size_t page = size_t(2) << 20, whole = (bytes + 2 * page) / page * page;
  char* p = static_cast<char*>(std::aligned_alloc(page, whole));
  if (p == nullptr) {
    std::fputs("ceilings: out of memory\n", stderr);
    std::exit(1);
  }
#if defined(MADV_HUGEPAGE)
  madvise(p, whole, MADV_HUGEPAGE);
#endif
  std::memset(p, 1, whole);
  return p;
}

// Returns GB/s, the sum of all threads, each of which reads its own `bytes` repeatedly.
double read_peak(const Machine& m, const std::vector<char*>& arrays, size_t bytes, int threads) {
  const long sweeps = static_cast<long>((size_t(96) << 20) / bytes) + 1;
  double best = 0;
  for (int run = 0; run < 8; ++run) {
    for (const size_t ahead : {0, 1024, 4096}) {
      const double seconds = together(threads, [&](int k) {
        for (long i = 0; i < sweeps; ++i) m.read(arrays[k], bytes, ahead);
      });
      const double rate = 1e-9 * static_cast<double>(bytes) * sweeps * threads / seconds;
      best = rate > best ? rate : best;
    }
    if (bytes > (size_t(64) << 20) && run == 2) break;
  }
  return best;
}

// Returns the nanoseconds of a round trip of a cache line between two cores.
double round_trip() {
  const int rounds = 20000;
  double best = 1e9;
  for (int run = 0; run < 5; ++run) {
    alignas(64) std::atomic<int> ball{0};
    const double seconds = together(2, [&](int k) {
      for (int i = 0; i < rounds; ++i) {
        int tries = 0;
        // With a single free core the other side needs it to answer.
        while (ball.load(std::memory_order_acquire) != 2 * i + k) {
          if (++tries > 10000) std::this_thread::yield();
        }
        ball.store(2 * i + k + 1, std::memory_order_release);
      }
    });
    best = 1e9 * seconds / rounds < best ? 1e9 * seconds / rounds : best;
  }
  return best;
}

long cache(int name) {
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const size_t largest = (argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 256) << 20;
  if (threads < 1 || largest < (size_t(1) << 20)) {
    std::fputs("usage: ceilings [threads >= 1] [largest array in MiB >= 1]\n", stderr);
    return 2;
  }
  const Machine m = machine();
  std::vector<char*> arrays;
  for (int k = 0; k < threads; ++k) arrays.push_back(memory(largest + 8192));
  const std::vector<int> counts = threads == 1 ? std::vector<int>{1} : std::vector<int>{1, threads};
  std::printf("{\"isa\": \"%s\", \"caches\": {\"l1d\": %ld, \"l2\": %ld, \"l3\": %ld},\n", m.isa,
              cache(_SC_LEVEL1_DCACHE_SIZE), cache(_SC_LEVEL2_CACHE_SIZE), cache(_SC_LEVEL3_CACHE_SIZE));
  std::string floats, doubles, reads;
  char text[160];
  for (const int n : counts) {
    const char* comma = n == 1 ? "" : ", ";
    std::snprintf(text, sizeof text, "%s\"%d\": %.2f", comma, n, fma_peak(m.fma_float, m.lanes, n));
    floats += text;
    std::snprintf(text, sizeof text, "%s\"%d\": %.2f", comma, n, fma_peak(m.fma_double, m.lanes / 2, n));
    doubles += text;
    // Bytes of each thread: powers of two from 16 KiB, and 1.5 times each, up to the largest.
    for (size_t base = size_t(16) << 10; base <= largest; base *= 2) {
      for (const size_t bytes : {base, base / 2 * 3}) {
        if (bytes > largest) continue;
        std::snprintf(text, sizeof text, "%s\n  {\"threads\": %d, \"bytes\": %zu, \"gb_per_s\": %.2f}",
                      reads.empty() ? "" : ",", n, bytes, read_peak(m, arrays, bytes, n));
        reads += text;
      }
    }
  }
  std::printf("\"gflop_per_s\": {\"float32\": {%s}, \"float64\": {%s}},\n\"read\": [%s],\n", floats.c_str(),
              doubles.c_str(), reads.c_str());
  std::printf("\"round_trip_ns\": %.1f}\n", threads > 1 ? round_trip() : 0.0);
  return 0;
}
