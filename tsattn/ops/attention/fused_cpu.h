// Active attention on CPUs: what its forward and backward kernels are given. Raw pointers only, so
// that the kernels build in seconds; tsattn/ops/cpu/bindings.cpp fills these from tensors.
#pragma once

#include "../cpu/activations.h"
#include "../cpu/philox.h"

#include <vector>

namespace tsattn {

// [batch, heads, length, width] with a contiguous last axis, of T.
template <class T>
struct HeadsView {
  T* data = nullptr;
  int64_t batch = 0, head = 0, row = 0; // strides
  T* at(int64_t b, int64_t n) const { return data + b * batch + n * head; }
};

// [batch, heads, queries, keys] of float or bfloat16; strides in elements, zero where broadcast.
// Null: absent.
struct PlaneView {
  void* data = nullptr;
  bool half = false;
  int64_t batch = 0, head = 0, query = 0, key = 0;
  float* floats(int64_t b, int64_t n) const { return at(static_cast<float*>(data), b, n); }
  c10::BFloat16* halves(int64_t b, int64_t n) const {
    return at(static_cast<c10::BFloat16*>(data), b, n);
  }

 private:
  template <class T>
  T* at(T* first, int64_t b, int64_t n) const {
    return first == nullptr ? nullptr : first + b * batch + n * head;
  }
};

// Queries and keys of one layer: its part of the width of a product.
template <class T>
struct Factor {
  HeadsView<const T> q, k;
  int64_t width = 0;
};

template <class T>
struct Problem {
  int64_t batch = 0, heads = 0, queries = 0, keys = 0, value_width = 0;
  int64_t width = 0; // of all factors together
  std::vector<Factor<T>> factors; // the scores are the sum of their products
  HeadsView<const T> v;
  PlaneView prev; // added to the scores, any strides
  PlaneView bias; // of float, added after the scores were returned; query stride 0 or 1
  bool causal = false;
  float scale = 1.0f;
  Activation activation = Activation::kIdentity;
  Dropout dropout;
  // Per query the largest score and the inverse of the sum of exponentials, [2, B, N, Q].
  float* stats = nullptr;
};

template <class T>
struct ForwardProblem : Problem<T> {
  HeadsView<T> out;
  PlaneView scores; // out: scale q k' + prev; query stride 1
};

// Where the gradients of a factor go, and what is added to them, if anything.
template <class T>
struct FactorGradients {
  HeadsView<T> q, k;
  HeadsView<const T> more_q, more_k;
};

template <class T>
struct BackwardProblem : Problem<T> {
  HeadsView<const T> out, grad_out;
  bool has_scores = false; // `prev` is the scores themselves, products and all
  PlaneView grad_scores; // any strides
  std::vector<FactorGradients<T>> grads; // of each factor
  HeadsView<T> grad_v;
  PlaneView grad_prev, grad_bias; // out; query stride 1, the latter of float
};

void attention_forward(const ForwardProblem<float>& problem);
void attention_forward(const ForwardProblem<c10::BFloat16>& problem);
void attention_backward(const BackwardProblem<float>& problem);
void attention_backward(const BackwardProblem<c10::BFloat16>& problem);

} // namespace tsattn
