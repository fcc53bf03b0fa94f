// What the derivatives of the operators share. An operator's backward pass is an operator of its own,
// called through the dispatcher, so that tracing sees it.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace tsattn {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

template <class Signature>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

inline void require_first_derivative() {
  TORCH_CHECK(
      !at::GradMode::is_enabled(),
      "the compiled kernels of tsattn have first derivatives only; for derivatives of derivatives "
      "(create_graph=True) compute in `with tsattn.ops.plain_torch():`, attention by "
      "impl=\"reference\"");
}

inline OptionalTensor optional(const Tensor& x) {
  return x.defined() ? OptionalTensor(x) : OptionalTensor();
}

// Undefined stands for an absent tensor among those that are saved.
inline Tensor or_undefined(const OptionalTensor& x) {
  return x.has_value() ? *x : Tensor();
}

} // namespace tsattn
