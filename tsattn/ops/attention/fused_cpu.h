// Active attention on CPUs: what its forward and backward kernels are given. Raw pointers only, so
// that the kernels build in seconds; tsattn/ops/cpu/bindings.cpp fills these from tensors.
#pragma once

#include "../cpu/activations.h"
#include "../cpu/philox.h"

namespace tsattn {

// [batch, heads, length, width] with a contiguous last axis, of T.
template <class T>
struct HeadsView {
  T* data = nullptr;
  int64_t batch = 0, head = 0, row = 0; // strides
  T* at(int64_t b, int64_t n) const { return data + b * batch + n * head; }
};

// [batch, heads, queries, keys]; strides in elements, zero where broadcast. Null: absent.
struct PlaneView {
  float* data = nullptr;
  int64_t batch = 0, head = 0, query = 0, key = 0;
  float* at(int64_t b, int64_t n) const {
    return data == nullptr ? nullptr : data + b * batch + n * head;
  }
};

template <class T>
struct Problem {
  int64_t batch = 0, heads = 0, queries = 0, keys = 0, width = 0, value_width = 0;
  HeadsView<const T> q, k, v;
  PlaneView prev; // added to the scores, any strides
  PlaneView bias; // added after the scores were returned; query stride 0 or 1
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

template <class T>
struct BackwardProblem : Problem<T> {
  HeadsView<const T> out, grad_out;
  PlaneView grad_scores; // any strides
  HeadsView<T> grad_q, grad_k, grad_v;
  PlaneView grad_prev, grad_bias; // out; query stride 1
};

void attention_forward(const ForwardProblem<float>& problem);
void attention_forward(const ForwardProblem<c10::BFloat16>& problem);
void attention_backward(const BackwardProblem<float>& problem);
void attention_backward(const BackwardProblem<c10::BFloat16>& problem);

} // namespace tsattn
