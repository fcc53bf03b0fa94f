// Slices of rows times packed matrices.

#include "dense.h"

#include "slices.h"

#if defined(TSATTN_PAIRS)
#include <cpuid.h>
#endif

namespace tsattn {

bool dense_sums_fit(int64_t width, int64_t features) {
  return std::max(width, features) <= 512;
}

int64_t dense_scratch(int64_t width, int64_t features) { // rounded up on either side
  return (width + 32) * (features + 32);
}

#if defined(TSATTN_PANELS)

namespace {

#if defined(TSATTN_PAIRS)
// AMX, which libraries use, multiplies several times as fast as vectors do.
bool has_matrix_units() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 24 & 1u) != 0;
}
#endif

// y [rows, b.columns] = x B + bias
template <class T, class X, class Y>
void multiply_rows(const X* x, int64_t rows, const Panels& b, const float* bias, Y* y) {
  const int64_t step = slice_rows(rows), width = b.inner * kPerWord<T>;
  for_slices(rows, step, [&] {
    return [&, words = SliceWords<T, X>(width)](int64_t row, int64_t count) mutable {
      const X* here = x + row * width;
      Y* to = y + row * b.columns;
      const int64_t next = std::min(step, rows - row - count);
      const Ahead ahead(
          here + count * width, next * width * sizeof(X), to + count * b.columns,
          next * b.columns * sizeof(Y), tiles_of(count, b.columns));
      slice_product<T>(words.of(here, count), words.ld(), count, b, bias, to, b.columns, ahead);
    };
  });
}

} // namespace

template <class T>
bool dense_runs() {
  if constexpr (std::is_same_v<T, float>) {
    return true;
  }
#if defined(TSATTN_PAIRS)
  static const bool matrix_units = has_matrix_units();
  return !matrix_units;
#else
  return false;
#endif
}

template <class T>
bool dense_fits(int64_t rows, int64_t width, int64_t features) {
  constexpr int64_t kLongest = 8192, kLeast = 32; // numbers of a row: a strip of rows stays in cache
  return rows >= kSlice && std::min(width, features) >= kLeast &&
      std::max(width, features) <= kLongest && width % kPerWord<T> == 0 &&
      features % kPerWord<T> == 0 && dense_runs<T>();
}

template <class X, class T>
void dense_forward(const DenseLinear<X, T>& p, const T* bias, T* y, float* scratch) {
  std::vector<float> wide(bias == nullptr ? 0 : p.features);
  if (bias != nullptr) {
    widen(bias, wide.data(), p.features);
  }
  const Panels panels = pack_matrix(p.weight, p.features, p.width, true, scratch);
  multiply_rows<T>(p.x, p.rows, panels, bias == nullptr ? nullptr : wide.data(), y);
}

template <class X, class T>
void dense_grad_input(const DenseLinear<X, T>& p, const T* grad, X* grad_x, float* scratch) {
  const Panels panels = pack_matrix(p.weight, p.features, p.width, false, scratch);
  multiply_rows<T>(grad, p.rows, panels, nullptr, grad_x);
}

int64_t dense_sums(int64_t rows, int64_t width, int64_t features) {
  const Sums shape(rows, width, features);
  return shape.segments * shape.floats();
}

template <class X, class T>
void dense_grad_weight(const DenseLinear<X, T>& p, const T* grad, T* grad_weight, float* sums) {
  const Sums shape(p.rows, p.width, p.features);
  at::parallel_for(0, shape.segments * shape.groups, 1, [&](int64_t begin, int64_t end) {
    OuterProducts<T> products(shape, shape.group_strips);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t segment = item / shape.groups;
      const int64_t first = item % shape.groups * shape.group_strips;
      const int64_t last = std::min(shape.strips, first + shape.group_strips);
      float* here = sums + segment * shape.floats();
      const int64_t strip = shape.panels * kTileFloats;
      std::fill(here + first * strip, here + last * strip, 0.0f);
      const int64_t end_row = std::min(p.rows, shape.first_row(segment + 1));
      for (int64_t row = shape.first_row(segment); row < end_row; row += products.kRows) {
        const int64_t rows = std::min(products.kRows, end_row - row), next = row + rows;
        const int64_t more = std::min(products.kRows, end_row - next);
        Ahead ahead(
            p.x + next * p.width, more * p.width * sizeof(X), grad + next * p.features,
            more * p.features * sizeof(T), tiles_of((last - first) * kStrip, p.width));
        products.add(
            grad + row * p.features, p.x + row * p.width, rows, first, last, ahead, here);
      }
    }
  });
  shape.join_all(sums, grad_weight);
}

#else

template <class T>
bool dense_runs() {
  return false;
}

template <class T>
bool dense_fits(int64_t, int64_t, int64_t) {
  return false;
}

int64_t dense_sums(int64_t, int64_t, int64_t) {
  return 0;
}

template <class X, class T>
void dense_forward(const DenseLinear<X, T>&, const T*, T*, float*) {}

template <class X, class T>
void dense_grad_input(const DenseLinear<X, T>&, const T*, X*, float*) {}

template <class X, class T>
void dense_grad_weight(const DenseLinear<X, T>&, const T*, T*, float*) {}

#endif

template bool dense_runs<float>();
template bool dense_runs<c10::BFloat16>();
template bool dense_fits<float>(int64_t, int64_t, int64_t);
template bool dense_fits<c10::BFloat16>(int64_t, int64_t, int64_t);

#define TSATTN_INSTANTIATE(X, T) \
  template void dense_forward<X, T>(const DenseLinear<X, T>&, const T*, T*, float*); \
  template void dense_grad_input<X, T>(const DenseLinear<X, T>&, const T*, X*, float*); \
  template void dense_grad_weight<X, T>(const DenseLinear<X, T>&, const T*, T*, float*);
TSATTN_INSTANTIATE(float, float)
TSATTN_INSTANTIATE(c10::BFloat16, c10::BFloat16)
TSATTN_INSTANTIATE(float, c10::BFloat16)

} // namespace tsattn
