// The dropout that an operator's arguments ask for.
#pragma once

#include "philox.h"

#include <ATen/core/Tensor.h>

#include <optional>

namespace tsattn {

inline Dropout dropout_of(double p, const std::optional<at::Tensor>& seed) {
  TORCH_CHECK(p >= 0.0 && p < 1.0, "the probability of dropout must be in [0, 1), got ", p);
  TORCH_CHECK(p == 0.0 || seed.has_value(), "dropout needs a seed");
  if (!seed.has_value()) {
    return {};
  }
  TORCH_CHECK(
      seed->scalar_type() == at::kLong && seed->numel() == 1, "seed must be one int64 number");
  return {p, static_cast<uint64_t>(*seed->const_data_ptr<int64_t>())};
}

} // namespace tsattn
