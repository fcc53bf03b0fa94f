// Layer normalisation of a residual path on CPUs: one pass over memory forwards, one backwards.
//
// Sums of a chunk of rows are kept apart and added in the order of the chunks: the result does not
// depend on the number of threads.

#include "layer_norm_cpu.h"

#include "rows.h"

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>

#include <cmath>
#include <vector>

namespace tsattn {
namespace {

float sum_of(const Vec& x) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, x);
}

// Mean and inverse deviation of a row; squares are of distances to the mean.
void row_moments(const float* x, int64_t features, float eps, float* mean, float* inverse) {
  Vec sum(0.0f), squares(0.0f);
  over_features(features, [&](int64_t f, const Tail& lanes) { sum = sum + lanes.load(x + f); });
  const float count = static_cast<float>(features), center = sum_of(sum) / count;
  over_features(features, [&](int64_t f, const Tail& lanes) {
    // lanes behind the last feature hold zeros, and their distance must be zero as well
    const Vec d = lanes.load(x + f) - lanes.only(Vec(center));
    squares = at::vec::fmadd(d, d, squares);
  });
  *mean = center;
  *inverse = 1.0f / std::sqrt(sum_of(squares) / count + eps);
}

} // namespace

template <class X>
void layer_norm_forward(
    const LayerNormShape& shape, const Dropout& dropout, const float* residual, const X* x,
    const float* weight, const float* bias, float* out, float* total, float* mean,
    float* inverse) {
  const Chunks chunks{shape.rows, shape.features};
  const int64_t features = shape.features;
  at::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = chunks.first(c), at = first * features, rows = chunks.size(c);
      drop<true>(dropout, at, rows * features, residual + at, x + at, total + at);
      for (int64_t r = first; r < first + rows; ++r) {
        const float* row = total + r * features;
        row_moments(row, features, shape.eps, mean + r, inverse + r);
        const Vec center(mean[r]), scale(inverse[r]);
        over_features(features, [&](int64_t f, const Tail& lanes) {
          const Vec z = (lanes.load(row + f) - center) * scale;
          lanes.store(
              out + r * features + f,
              at::vec::fmadd(z, lanes.load(weight + f), lanes.load(bias + f)));
        });
      }
    }
  });
}

template <class X>
void layer_norm_backward(
    const LayerNormShape& shape, const Dropout& dropout, const float* grad, const float* total,
    const float* mean, const float* inverse, const float* weight, float* grad_residual, X* grad_x,
    float* grad_weight, float* grad_bias) {
  const Chunks chunks{shape.rows, shape.features};
  const int64_t features = shape.features;
  std::vector<float> weights(chunks.count() * features), biases(chunks.count() * features);
  at::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = chunks.first(c), at = first * features, rows = chunks.size(c);
      float *to_weight = &weights[c * features], *to_bias = &biases[c * features];
      for (int64_t r = first; r < first + rows; ++r) {
        const float *g = grad + r * features, *x = total + r * features;
        const Vec center(mean[r]), scale(inverse[r]);
        // z = (x - mean) inverse; d z = g weight; d x = inverse (d z - mean(d z) - z mean(z d z))
        Vec sum(0.0f), product(0.0f);
        over_features(features, [&](int64_t f, const Tail& lanes) {
          const Vec gradient = lanes.load(g + f), z = (lanes.load(x + f) - center) * scale;
          const Vec dz = gradient * lanes.load(weight + f);
          sum = sum + dz;
          product = at::vec::fmadd(z, dz, product);
          lanes.store(to_weight + f, at::vec::fmadd(gradient, z, lanes.load(to_weight + f)));
          lanes.store(to_bias + f, lanes.load(to_bias + f) + gradient);
        });
        const float count = static_cast<float>(features);
        const Vec average(sum_of(sum) / count), slope(sum_of(product) / count);
        over_features(features, [&](int64_t f, const Tail& lanes) {
          const Vec z = (lanes.load(x + f) - center) * scale;
          const Vec dz = lanes.load(g + f) * lanes.load(weight + f);
          lanes.store(grad_residual + r * features + f, (dz - average - z * slope) * scale);
        });
      }
      drop<false>(dropout, at, rows * features, nullptr, grad_residual + at, grad_x + at);
    }
  });
  std::fill_n(grad_weight, features, 0.0f);
  std::fill_n(grad_bias, features, 0.0f);
  for (int64_t c = 0; c < chunks.count(); ++c) {
    for (int64_t f = 0; f < features; ++f) {
      grad_weight[f] += weights[c * features + f];
      grad_bias[f] += biases[c * features + f];
    }
  }
}

#define TSATTN_INSTANTIATE(X) \
  template void layer_norm_forward<X>( \
      const LayerNormShape&, const Dropout&, const float*, const X*, const float*, const float*, \
      float*, float*, float*, float*); \
  template void layer_norm_backward<X>( \
      const LayerNormShape&, const Dropout&, const float*, const float*, const float*, \
      const float*, const float*, float*, X*, float*, float*);
TSATTN_INSTANTIATE(float)
TSATTN_INSTANTIATE(c10::BFloat16)

} // namespace tsattn
