// Batch normalisation of a residual path on CPUs: two passes forwards, two backwards.
//
// Sums of a chunk are kept apart and added in the order of the chunks: the result does not depend on
// the number of threads.

#include "batch_norm_cpu.h"

#include "rows.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

namespace tsattn {
namespace {

// Per feature the mean and the sum of squared distances to it, over the rows of one chunk.
void chunk_moments(const float* x, int64_t rows, int64_t features, float* mean, float* squares) {
  const Vec inverse(1.0f / static_cast<float>(rows));
  over_features(features, [&](int64_t f, const Tail& lanes) {
    Vec sum(0.0f), square(0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      sum = sum + lanes.load(x + r * features + f);
    }
    const Vec center = sum * inverse;
    for (int64_t r = 0; r < rows; ++r) {
      const Vec d = lanes.load(x + r * features + f) - center;
      square = at::vec::fmadd(d, d, square);
    }
    lanes.store(mean + f, center);
    lanes.store(squares + f, square);
  });
}

// Chan, Golub, LeVeque 1979: joins the moments of the chunks, in their order, in double precision.
void join_moments(const Chunks& chunks, const float* means, const float* squares, float* mean,
                  float* variance) {
  for (int64_t f = 0; f < chunks.features; ++f) {
    double count = 0.0, center = 0.0, square = 0.0;
    for (int64_t c = 0; c < chunks.count(); ++c) {
      const double more = static_cast<double>(chunks.size(c));
      const double delta = means[c * chunks.features + f] - center;
      square += squares[c * chunks.features + f] + delta * delta * count * more / (count + more);
      count += more;
      center += delta * more / count;
    }
    mean[f] = static_cast<float>(center);
    variance[f] = static_cast<float>(square / count);
  }
}

float inverse_deviation(float variance, float eps) {
  return 1.0f / std::sqrt(variance + eps);
}

} // namespace

template <class X>
void batch_norm_forward(
    const BatchNormShape& shape, const Dropout& dropout, const float* residual, const X* x,
    const float* weight, const float* bias, float* out, float* total, float* mean,
    float* variance) {
  const Chunks chunks{shape.rows, shape.features};
  const int64_t features = shape.features;
  std::vector<float> means(chunks.count() * features), squares(chunks.count() * features);
  at::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = chunks.first(c) * features, rows = chunks.size(c);
      drop<true>(dropout, at, rows * features, residual + at, x + at, total + at);
      chunk_moments(total + at, rows, features, &means[c * features], &squares[c * features]);
    }
  });
  join_moments(chunks, means.data(), squares.data(), mean, variance);
  std::vector<float> factor(features);
  for (int64_t f = 0; f < features; ++f) {
    factor[f] = weight[f] * inverse_deviation(variance[f], shape.eps);
  }
  at::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    const int64_t last = std::min(shape.rows, end * kChunk);
    for (int64_t r = begin * kChunk; r < last; ++r) {
      over_features(features, [&](int64_t f, const Tail& lanes) {
        const Vec d = lanes.load(total + r * features + f) - lanes.load(mean + f);
        lanes.store(
            out + r * features + f,
            at::vec::fmadd(d, lanes.load(factor.data() + f), lanes.load(bias + f)));
      });
    }
  });
}

template <class X>
void batch_norm_backward(
    const BatchNormShape& shape, const Dropout& dropout, const float* grad, const float* total,
    const float* mean, const float* variance, const float* weight, float* grad_residual, X* grad_x,
    float* grad_weight, float* grad_bias) {
  const Chunks chunks{shape.rows, shape.features};
  const int64_t features = shape.features;
  std::vector<float> sums(chunks.count() * features), products(chunks.count() * features);
  at::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = chunks.first(c) * features;
      over_features(features, [&](int64_t f, const Tail& lanes) {
        const Vec center = lanes.load(mean + f);
        Vec sum(0.0f), product(0.0f);
        for (int64_t r = 0; r < chunks.size(c); ++r) {
          const Vec g = lanes.load(grad + at + r * features + f);
          sum = sum + g;
          product = at::vec::fmadd(g, lanes.load(total + at + r * features + f) - center, product);
        }
        lanes.store(&sums[c * features + f], sum);
        lanes.store(&products[c * features + f], product);
      });
    }
  });
  // d total = factor (grad - mean(grad) - (total - mean) slope)
  std::vector<float> factor(features), average(features), slope(features);
  for (int64_t f = 0; f < features; ++f) {
    double sum = 0.0, product = 0.0;
    for (int64_t c = 0; c < chunks.count(); ++c) {
      sum += sums[c * features + f];
      product += products[c * features + f];
    }
    const double rows = static_cast<double>(shape.rows);
    const double inverse = inverse_deviation(variance[f], shape.eps);
    grad_bias[f] = static_cast<float>(sum);
    grad_weight[f] = static_cast<float>(product * inverse);
    factor[f] = static_cast<float>(weight[f] * inverse);
    average[f] = static_cast<float>(sum / rows);
    slope[f] = static_cast<float>(product * inverse * inverse / rows);
  }
  at::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = chunks.first(c) * features, rows = chunks.size(c);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t row = at + r * features;
        over_features(features, [&](int64_t f, const Tail& lanes) {
          const Vec d = lanes.load(total + row + f) - lanes.load(mean + f);
          const Vec g = lanes.load(grad + row + f) - lanes.load(average.data() + f);
          const Vec spread = d * lanes.load(slope.data() + f);
          lanes.store(grad_residual + row + f, (g - spread) * lanes.load(factor.data() + f));
        });
      }
      drop<false>(dropout, at, rows * features, nullptr, grad_residual + at, grad_x + at);
    }
  });
}

#define TSATTN_INSTANTIATE(X) \
  template void batch_norm_forward<X>( \
      const BatchNormShape&, const Dropout&, const float*, const X*, const float*, const float*, \
      float*, float*, float*, float*); \
  template void batch_norm_backward<X>( \
      const BatchNormShape&, const Dropout&, const float*, const float*, const float*, \
      const float*, const float*, float*, X*, float*, float*);
TSATTN_INSTANTIATE(float)
TSATTN_INSTANTIATE(c10::BFloat16)

} // namespace tsattn
