// Slices of tokens, every product of a slice while it lies in cache. Libraries split such products,
// whose weight is a few vectors, badly among threads, and read the tokens once per product.

#include "narrow.h"

#include "../attention/tile.h"

#include <ATen/Parallel.h>

#include <vector>

namespace tsattn {
namespace {

constexpr int64_t kSlice = 512; // tokens

// Calls body<R>(first) for every group of up to kVecs vectors of `columns`.
template <class Body>
TSATTN_INLINE void for_columns(int64_t columns, Body&& body) {
  for (int64_t first = 0; first < columns; first += kTile) {
    with_vectors(std::min(kTile, columns - first), [&]<int R>() { body.template operator()<R>(first); });
  }
}

std::vector<float> transposed(const NarrowLinear& p) {
  std::vector<float> weight(p.width * p.features);
  for (int64_t f = 0; f < p.features; ++f) {
    for (int64_t d = 0; d < p.width; ++d) {
      weight[d * p.features + f] = p.weight[f * p.width + d];
    }
  }
  return weight;
}

template <class Body>
void for_slices(int64_t rows, Body&& body) {
  at::parallel_for(0, (rows + kSlice - 1) / kSlice, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      body(s, s * kSlice, std::min(kSlice, rows - s * kSlice));
    }
  });
}

// Adds the columns of grad to sums.
void add_columns(const float* grad, int64_t rows, int64_t columns, float* sums) {
  for (int64_t f = 0; f < columns; f += kLanes) {
    Vec sum(0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      sum = sum + Vec::loadu(grad + r * columns + f);
    }
    (Vec::loadu(sums + f) + sum).store(sums + f);
  }
}

void slice_gradients(
    const NarrowLinear& p, const float* grad, int64_t row, int64_t count,
    const NarrowLinearGradients& out) {
  const float* x = p.x + row * p.width;
  const float* dy = grad + row * p.features;
  for_columns(p.width, [&]<int R>(int64_t d) {
    if (out.x != nullptr) {
      product<R>(
          dy, p.features, 1, count, p.weight + d, p.width, p.features,
          Into<R>{out.x + row * p.width + d, p.width});
    }
    if (out.weight != nullptr) {
      product<R>(
          dy, 1, p.features, p.features, x + d, p.width, count,
          Into<R, true>{out.weight + d, p.width});
    }
  });
  if (out.bias != nullptr) {
    add_columns(dy, count, p.features, out.bias);
  }
}

} // namespace

void narrow_linear_forward(const NarrowLinear& p, const float* bias, float* y) {
  const std::vector<float> weight = transposed(p);
  for_slices(p.rows, [&](int64_t, int64_t row, int64_t count) {
    for_columns(p.features, [&]<int R>(int64_t f) {
      Vec b[R];
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        b[r] = bias == nullptr ? Vec(0.0f) : Vec::loadu(bias + f + r * kLanes);
      }
      float* here = y + row * p.features + f;
      product<R>(
          p.x + row * p.width, p.width, 1, count, weight.data() + f, p.features, p.width,
          [&](int64_t m, const Vec(&c)[R]) {
#pragma GCC unroll 3
            for (int r = 0; r < R; ++r) {
              (c[r] + b[r]).store(here + m * p.features + r * kLanes);
            }
          });
    });
  });
}

void narrow_linear_backward(
    const NarrowLinear& p, const float* grad, const NarrowLinearGradients& out) {
  const int64_t slices = (p.rows + kSlice - 1) / kSlice;
  const int64_t weights = p.features * p.width, size = weights + p.features;
  std::vector<float> sums(std::max<int64_t>(slices, 1) * size, 0.0f);
  for_slices(p.rows, [&](int64_t s, int64_t row, int64_t count) {
    float* here = sums.data() + s * size;
    slice_gradients(
        p, grad, row, count,
        {out.x, out.weight == nullptr ? nullptr : here, out.bias == nullptr ? nullptr : here + weights});
  });
  for (int64_t s = 1; s < slices; ++s) {
    for (int64_t i = 0; i < size; ++i) {
      sums[i] += sums[s * size + i];
    }
  }
  if (out.weight != nullptr) {
    std::copy_n(sums.data(), weights, out.weight);
  }
  if (out.bias != nullptr) {
    std::copy_n(sums.data() + weights, p.features, out.bias);
  }
}

} // namespace tsattn
