// Sums over the rows of a matrix: the gradient of a bias.
#pragma once

#include <cstdint>

namespace tsattn {

// sums[c] = sum of x[r][c] in float32; the order of the additions is fixed.
template <class T>
void column_sums(const T* x, int64_t rows, int64_t columns, float* sums);

} // namespace tsattn
