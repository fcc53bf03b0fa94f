// What happens to the rows of a block between its products: gathering, activation and dropout, their
// derivatives, and adding up. Rows are whole vectors: their width is a multiple of 16.
#pragma once

#include "expert_blocks.h"

#include "../cpu/activations.h"
#include "../cpu/philox.h"

#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>

#include <cstring>

namespace tsattn {
inline namespace CPU_CAPABILITY {

constexpr int64_t kSixteen = 16; // rows, and columns, of a group of dropout decisions

TSATTN_INLINE Vec load_row(const float* x) {
  return Vec::loadu(x);
}

TSATTN_INLINE Vec load_row(const c10::BFloat16* x) {
#if defined(CPU_CAPABILITY_AVX512)
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#else
  float wide[kLanes];
  widen(x, wide, kLanes);
  return Vec::loadu(wide);
#endif
}

TSATTN_INLINE void store_row(float* x, const Vec& v) {
  v.store(x);
}

TSATTN_INLINE void store_row(c10::BFloat16* x, const Vec& v) {
  float wide[kLanes];
  v.store(wide);
  narrow(wide, x, kLanes);
}

TSATTN_INLINE float sum_lanes(const Vec& x) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, x);
}

// to[r] = from[slots[r] / top_k], and zeros up to `rows`
template <class T>
inline void gather_rows(
    const T* from, const int64_t* slots, int64_t count, int64_t top_k, int64_t rows, int64_t width,
    T* to) {
  for (int64_t r = 0; r < count; ++r) {
    std::memcpy(to + r * width, from + slots[r] / top_k * width, width * sizeof(T));
  }
  std::memset(to + count * width, 0, (rows - count) * width * sizeof(T));
}

// Hidden units of a block, and which of them are dropped.
struct HiddenBlock {
  int64_t rows = 0, count = 0, width = 0; // the rows from `count` on belong to no slot
  int64_t group = 0; // of dropout decisions: 16 rows by 16 columns, decision 16 row + column
  Dropout dropout;

  // Calls body(row, column, bits) for every vector.
  template <class Body>
  TSATTN_INLINE void over_vectors(Body&& body) const {
    const int64_t across = width / kSixteen;
    for (int64_t r0 = 0; r0 < rows; r0 += kSixteen) {
      for (int64_t c = 0; c < across; ++c) {
        uint16_t bits[kGroupParts];
        if (dropout.on) {
          draw_group(dropout, group + r0 / kSixteen * across + c, bits);
        } else {
          std::fill_n(bits, kGroupParts, 0xffff);
        }
        for (int64_t r = r0; r < std::min(rows, r0 + kSixteen); ++r) {
#pragma GCC unroll 2
          for (int64_t l = 0; l < kSixteen; l += kLanes) {
            body(r, c * kSixteen + l, static_cast<uint32_t>(bits[r - r0]) >> l);
          }
        }
      }
    }
  }
};

// before += bias (kept in `stored` where given), hidden = drop(activation(before))
template <Activation A, class T>
inline void activate_block(
    const HiddenBlock& block, const T* before, const float* bias, T* stored, T* hidden) {
  const Vec scale(block.dropout.scale);
  block.over_vectors([&](int64_t r, int64_t c, uint32_t bits) {
    const int64_t at = r * block.width + c;
    const Vec h = load_row(before + at) + Vec::loadu(bias + c);
    if (stored != nullptr && r < block.count) {
      store_row(stored + at, h);
    }
    store_row(hidden + at, keep(value_and_slope<A>(h).value * scale, bits));
  });
}

// With u the gradient of a token's output times W_2: the gradients of its weight (`dots`) and of what
// goes into the activation (`grad`, where u was), and the weighted hidden units.
template <Activation A, class T>
inline void differentiate_block(
    const HiddenBlock& block, const T* before, const float* weights, T* grad, T* hidden,
    float* grad_bias, float* dots) {
  const Vec scale(block.dropout.scale), zero(0.0f);
  Vec sums[kBlockSlots];
  std::fill_n(sums, block.rows, zero);
  block.over_vectors([&](int64_t r, int64_t c, uint32_t bits) {
    const int64_t at = r * block.width + c;
    if (r >= block.count) {
      store_row(grad + at, zero);
      store_row(hidden + at, zero);
      return;
    }
    const ValueAndSlope both = value_and_slope<A>(load_row(before + at));
    const Vec u = keep(load_row(grad + at) * scale, bits);
    const Vec weight(weights[r]), slope = u * both.slope * weight;
    sums[r] = at::vec::fmadd(u, both.value, sums[r]);
    store_row(hidden + at, keep(both.value * scale * weight, bits));
    store_row(grad + at, slope);
    (Vec::loadu(grad_bias + c) + slope).store(grad_bias + c);
  });
  for (int64_t r = 0; r < block.count; ++r) {
    dots[r] = sum_lanes(sums[r]);
  }
}

// to[slots[r]] = from[r] + bias
template <class T>
inline void scatter_rows(
    const T* from, const float* bias, const int64_t* slots, int64_t count, int64_t width, T* to) {
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t d = 0; d < width; d += kLanes) {
      store_row(to + slots[r] * width + d, load_row(from + r * width + d) + Vec::loadu(bias + d));
    }
  }
}

// to[slots[r]] = from[r]
template <class T>
inline void copy_rows(const T* from, const int64_t* slots, int64_t count, int64_t width, T* to) {
  for (int64_t r = 0; r < count; ++r) {
    std::memcpy(to + slots[r] * width, from + r * width, width * sizeof(T));
  }
}

// grad_bias += sum of weights[r] grad[r], and dots[r] += grad[r] . bias
template <class T>
inline void differentiate_bias(
    const T* grad, const float* weights, const float* bias, int64_t count, int64_t width,
    float* grad_bias, float* dots) {
  for (int64_t r = 0; r < count; ++r) {
    Vec dot(0.0f);
    const Vec weight(weights[r]);
    for (int64_t d = 0; d < width; d += kLanes) {
      const Vec g = load_row(grad + r * width + d);
      dot = at::vec::fmadd(g, Vec::loadu(bias + d), dot);
      at::vec::fmadd(g, weight, Vec::loadu(grad_bias + d)).store(grad_bias + d);
    }
    dots[r] += sum_lanes(dot);
  }
}

// to[n] = sum_k weights[n K + k] rows[n K + k]; without weights the sum of the rows
template <class T>
inline void add_rows(
    const T* rows, const float* weights, int64_t tokens, int64_t top_k, int64_t width, T* to) {
  at::parallel_for(0, tokens, 256, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t d = 0; d < width; d += kLanes) {
        Vec sum(0.0f);
        for (int64_t s = n * top_k; s < (n + 1) * top_k; ++s) {
          const Vec weight(weights == nullptr ? 1.0f : weights[s]);
          sum = at::vec::fmadd(load_row(rows + s * width + d), weight, sum);
        }
        store_row(to + n * width + d, sum);
      }
    }
  });
}

// to[i] += from[i]
template <class T>
inline void add_to(const T* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += kLanes) {
    (Vec::loadu(to + i) + load_row(from + i)).store(to + i);
  }
}

// Adds up the slices of each expert, rounded to the dtype of `out`.
template <class T>
inline void add_slices(const std::vector<Slice>& slices, const at::Tensor& sums, const at::Tensor& out) {
  const int64_t size = sums.numel() / std::max<int64_t>(1, sums.size(0));
  const float* from = sums.const_data_ptr<float>();
  at::parallel_for(0, out.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> total(size);
    for (int64_t e = begin; e < end; ++e) {
      std::fill(total.begin(), total.end(), 0.0f);
      for (size_t s = 0; s < slices.size(); ++s) {
        if (slices[s].expert == e) {
          add_to(from + s * size, size, total.data());
        }
      }
      narrow(total.data(), out.mutable_data_ptr<T>() + e * size, size);
    }
  });
}

} // namespace CPU_CAPABILITY
} // namespace tsattn
