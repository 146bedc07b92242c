// A network for Python, of either type, with its packed weights. It never changes: new parameters make a successor, so
// that running calls, tapes and snapshots keep the weights that they began with.
#pragma once

#include <memory>
#include <variant>

#include "bind/arrays.h"
#include "rnn/tape.h"
#include "rnn/weights.h"

namespace quadgate {

// The part that a network and its successors share.
struct Family {
  Family(const std::string& dtype, const Sizes& sizes, bool batch_first);

  template <class Real>
  const std::shared_ptr<SpareTape<Real>>& spare() const {
    return std::get<std::shared_ptr<SpareTape<Real>>>(spare_);
  }

  const Sizes sizes;
  const bool is_double, batch_first;
  const uint64_t id;  // an address could be used again by another network

 private:
  const std::variant<std::shared_ptr<SpareTape<float>>, std::shared_ptr<SpareTape<double>>> spare_;
};

class Network {
 public:
  explicit Network(std::shared_ptr<const Family> family) : family_(std::move(family)) {}

  const Family& family() const { return *family_; }
  const Sizes& sizes() const { return family_->sizes; }
  bool is_double() const { return family_->is_double; }

  template <class Real>
  const std::shared_ptr<const Weights<Real>>& weights() const {
    const auto* w = std::get_if<std::shared_ptr<const Weights<Real>>>(&weights_);
    if (!w) throw std::runtime_error("the network has no parameters yet");
    return *w;
  }

  // Bytes of the packed weights.
  size_t nbytes() const;

  // The same network with other parameters: a list of C-contiguous arrays in the order of each_parameter. Matrices of
  // compact weights are arrays of uint16, the bits of float16 or bfloat16, or int8 with the float32 scales of their
  // rows behind each.
  Network successor(py::handle list) const;

  // Copies the matrices of 16-bit weights that are packed as floats into a list of C-contiguous float32 arrays, in the
  // order of each_parameter. False if they are packed in 16 bits; the list is not read then. None: only the answer.
  bool unpack(py::handle list) const;

  // Multiply-adds of a forward pass over so many rows, times two.
  double flops(size_t rows) const { return forward_flops(sizes(), rows); }

 private:
  template <class Real>
  Network packed(py::handle list) const;
  Network packed_compact(py::handle list) const;

  std::shared_ptr<const Family> family_;
  std::variant<std::monostate, std::shared_ptr<const Weights<float>>, std::shared_ptr<const Weights<double>>> weights_;
};

// The network that a Python object is. Throws TypeError for any other object.
const Network& network_of(py::handle object);

// Throws TypeError for a network of compact weights, which no gradient goes back through.
void refuse_compact(const Sizes& sizes);

void register_network(py::module_& m);

}  // namespace quadgate
