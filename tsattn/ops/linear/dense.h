// Linear maps between many features, for many tokens, in float32 and in pairs of bfloat16.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace tsattn {

// y = x W' + b with x [rows, width] and W [features, width], all contiguous. What is multiplied is T;
// an x of float beside a weight of bfloat16 is rounded slice by slice, and has a gradient of float.
template <class X, class T>
struct DenseLinear {
  int64_t rows, width, features;
  const X* x;
  const T* weight;
};

// Whether this processor has the registers and, for bfloat16, the instruction and no matrix units.
template <class T>
bool dense_runs();

// Whether these products are computed here, too: neither side is so narrow or so long that a library
// does better.
template <class T>
bool dense_fits(int64_t rows, int64_t width, int64_t features);

// Whether the gradient of the weight is computed here, too: a wide one is left to a library.
bool dense_sums_fit(int64_t width, int64_t features);

// Floats of scratch memory for a packed weight.
int64_t dense_scratch(int64_t width, int64_t features);

template <class X, class T>
void dense_forward(const DenseLinear<X, T>& p, const T* bias, T* y, float* scratch);

// grad_x = grad W
template <class X, class T>
void dense_grad_input(const DenseLinear<X, T>& p, const T* grad, X* grad_x, float* scratch);

// Floats of scratch memory for partial sums.
int64_t dense_sums(int64_t rows, int64_t width, int64_t features);

// grad_weight = grad' x. The order of all additions is fixed, whatever the number of threads.
template <class X, class T>
void dense_grad_weight(const DenseLinear<X, T>& p, const T* grad, T* grad_weight, float* sums);

} // namespace tsattn
