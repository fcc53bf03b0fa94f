// A linear map and its derivatives. Between few features (narrow.h), and between many where the
// processor has what it takes (dense.h), it is computed here; other products with the weight go to
// oneDNN's pointwise linear, which adds the bias as it writes, and the gradient of the weight is torch's
// own product. Schemas in fused_cpu.py.

#include "column_sums.h"
#include "dense.h"
#include "narrow.h"

#include "../cpu/autograd.h"
#include "../cpu/lasting.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

namespace tsattn {
namespace {

using torch::autograd::Function;

Tensor rows_of(const Tensor& x) {
  return x.reshape({-1, x.size(-1)}).contiguous();
}

bool is_narrow(const Tensor& x, const Tensor& weight) {
  return x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
      NarrowLinear::fits(weight.size(1), weight.size(0));
}

NarrowLinear narrow_problem(const Tensor& rows, const Tensor& weight) {
  return {
      rows.size(0), weight.size(1), weight.size(0), rows.const_data_ptr<float>(),
      weight.const_data_ptr<float>()};
}

Tensor narrow_forward(const Tensor& rows, const Tensor& weight_, const OptionalTensor& bias_) {
  const Tensor weight = weight_.contiguous();
  const Tensor bias = bias_.has_value() ? bias_->contiguous() : Tensor();
  TORCH_CHECK(!bias.defined() || bias.scalar_type() == at::kFloat, "expected a float32 bias");
  Tensor y = tsattn::empty_lasting({rows.size(0), weight.size(0)}, rows.options());
  narrow_linear_forward(
      narrow_problem(rows, weight), bias.defined() ? bias.const_data_ptr<float>() : nullptr,
      y.mutable_data_ptr<float>());
  return y;
}

Tensor scratch(int64_t floats) {
  return tsattn::empty_lasting({floats}, at::TensorOptions(at::kFloat));
}

// Rows may be float32 beside a weight of bfloat16.
bool is_dense(const Tensor& x, const Tensor& weight) {
  const auto dtype = weight.scalar_type();
  const int64_t width = weight.size(1), features = weight.size(0);
  const int64_t rows = width == 0 ? 0 : x.numel() / width;
  if (x.scalar_type() != dtype && x.scalar_type() != at::kFloat) {
    return false;
  }
  return dtype == at::kFloat     ? dense_fits<float>(rows, width, features)
      : dtype == at::kBFloat16 && dense_fits<c10::BFloat16>(rows, width, features);
}

// Calls run<X, T>() for rows of X and a weight of T.
template <class Run>
void with_types(const Tensor& rows, const Tensor& weight, Run&& run) {
  if (weight.scalar_type() == at::kFloat) {
    run.template operator()<float, float>();
  } else if (rows.scalar_type() == at::kFloat) {
    run.template operator()<float, c10::BFloat16>();
  } else {
    run.template operator()<c10::BFloat16, c10::BFloat16>();
  }
}

template <class X, class T>
DenseLinear<X, T> dense_problem(const Tensor& rows, const Tensor& weight) {
  return {
      rows.size(0), weight.size(1), weight.size(0), rows.const_data_ptr<X>(),
      weight.const_data_ptr<T>()};
}

Tensor dense_forward(const Tensor& rows, const Tensor& weight_, const OptionalTensor& bias_) {
  const Tensor weight = weight_.contiguous();
  const Tensor bias = bias_.has_value() ? bias_->contiguous() : Tensor();
  TORCH_CHECK(
      !bias.defined() || bias.scalar_type() == weight.scalar_type(), "expected a bias of ",
      weight.scalar_type(), ", got ", bias.scalar_type());
  const Tensor packed = scratch(dense_scratch(weight.size(1), weight.size(0)));
  Tensor y = tsattn::empty_lasting({rows.size(0), weight.size(0)}, weight.options());
  with_types(rows, weight, [&]<class X, class T>() {
    dense_forward<X, T>(
        dense_problem<X, T>(rows, weight), bias.defined() ? bias.const_data_ptr<T>() : nullptr,
        y.mutable_data_ptr<T>(), packed.mutable_data_ptr<float>());
  });
  return y;
}

Tensor dense_grad_input(const Tensor& grad, const Tensor& rows, const Tensor& weight_) {
  const Tensor weight = weight_.contiguous();
  const Tensor packed = scratch(dense_scratch(weight.size(1), weight.size(0)));
  Tensor grad_x = tsattn::empty_lasting(rows.sizes(), rows.options());
  with_types(rows, weight, [&]<class X, class T>() {
    dense_grad_input<X, T>(
        dense_problem<X, T>(rows, weight), grad.const_data_ptr<T>(), grad_x.mutable_data_ptr<X>(),
        packed.mutable_data_ptr<float>());
  });
  return grad_x;
}

Tensor dense_grad_weight(const Tensor& grad, const Tensor& rows, const Tensor& weight) {
  const Tensor sums = scratch(dense_sums(rows.size(0), weight.size(1), weight.size(0)));
  Tensor grad_weight = tsattn::empty_lasting(weight.sizes(), weight.options());
  with_types(rows, weight, [&]<class X, class T>() {
    dense_grad_weight<X, T>(
        dense_problem<X, T>(rows, weight), grad.const_data_ptr<T>(),
        grad_weight.mutable_data_ptr<T>(), sums.mutable_data_ptr<float>());
  });
  return grad_weight;
}

// Whether oneDNN multiplies bfloat16 here, which it refuses on older processors.
bool onednn_takes(at::ScalarType dtype) {
  static const auto known =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_is_mkldnn_bf16_supported", ""});
  static const bool halves = known.has_value() && known->typed<bool()>().call();
  return dtype == at::kFloat || halves;
}

// rows W' + bias
Tensor multiply(const Tensor& rows, const Tensor& weight, const OptionalTensor& bias) {
  static const auto known =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!known.has_value() || rows.size(0) == 0 || !onednn_takes(rows.scalar_type())) {
    return at::linear(rows, weight, bias);
  }
  static const auto compute = known->typed<Tensor(
      const Tensor&, const Tensor&, const OptionalTensor&, std::string_view,
      c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>();
  const auto in_rows = bias.has_value() ? OptionalTensor(bias->contiguous()) : OptionalTensor();
  return compute.call(
      rows, weight.contiguous(), in_rows, "none", c10::List<std::optional<at::Scalar>>(), "");
}

Tensor forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  TORCH_CHECK(
      x.dim() >= 1 && weight.dim() == 2 && x.size(-1) == weight.size(1),
      "expected x [..., width] and weight [features, width], got ", x.sizes(), " and ",
      weight.sizes());
  TORCH_CHECK(
      !bias.has_value() || bias->sizes() == weight.sizes().slice(0, 1),
      "expected one bias per feature");
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  const Tensor rows = rows_of(x);
  const Tensor y = is_narrow(x, weight) ? narrow_forward(rows, weight, bias)
      : is_dense(rows, weight)          ? dense_forward(rows, weight, bias)
                                        : multiply(rows.to(weight.scalar_type()), weight, bias);
  return y.view(sizes);
}

Tensor sum_rows(const Tensor& rows) {
  Tensor sums = tsattn::empty_lasting({rows.size(1)}, rows.options().dtype(at::kFloat));
  if (rows.scalar_type() == at::kFloat) {
    column_sums(
        rows.const_data_ptr<float>(), rows.size(0), rows.size(1), sums.mutable_data_ptr<float>());
  } else {
    column_sums(
        rows.const_data_ptr<c10::BFloat16>(), rows.size(0), rows.size(1),
        sums.mutable_data_ptr<float>());
  }
  return sums.to(rows.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> narrow_backward(
    const Tensor& grad_, const Tensor& x, const Tensor& weight_, bool need_x, bool need_weight,
    bool need_bias) {
  const Tensor grad = rows_of(grad_), rows = rows_of(x), weight = weight_.contiguous();
  const auto made = [&](bool needed, at::IntArrayRef sizes) {
    return tsattn::empty_lasting(needed ? sizes : at::IntArrayRef(0), weight.options());
  };
  const auto pointer = [](bool needed, Tensor& t) {
    return needed ? t.mutable_data_ptr<float>() : nullptr;
  };
  Tensor grad_x = made(need_x, x.sizes()), grad_weight = made(need_weight, weight.sizes()),
         grad_bias = made(need_bias, {weight.size(0)});
  narrow_linear_backward(
      narrow_problem(rows, weight), grad.const_data_ptr<float>(),
      {pointer(need_x, grad_x), pointer(need_weight, grad_weight), pointer(need_bias, grad_bias)});
  return {grad_x, grad_weight, grad_bias};
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, bool need_x, bool need_weight,
    bool need_bias) {
  if (is_narrow(x, weight)) {
    return narrow_backward(grad, x, weight, need_x, need_weight, need_bias);
  }
  const auto dtype = weight.scalar_type();
  const Tensor rows = rows_of(x), by = rows_of(grad);
  const bool dense = by.scalar_type() == dtype && is_dense(rows, weight);
  const Tensor nothing = tsattn::empty_lasting({0}, weight.options());
  const auto grad_input = [&] {
    if (dense) {
      return dense_grad_input(by, rows, weight);
    }
    // in bfloat16 torch's product is oneDNN's as well, and takes the weight as it lies
    const Tensor y = dtype == at::kFloat ? multiply(by, weight.t(), {}) : at::mm(by, weight);
    return y.to(x.scalar_type());
  };
  const auto grad_weight = [&] {
    return dense && dense_sums_fit(weight.size(1), weight.size(0))
        ? dense_grad_weight(by, rows, weight)
        : at::mm(by.t(), rows.to(dtype));
  };
  return {
      need_x ? grad_input().view(x.sizes()) : x.new_empty({0}), need_weight ? grad_weight() : nothing,
      need_bias ? sum_rows(by) : nothing};
}

class Linear : public Function<Linear> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute =
        find<Tensor(const Tensor&, const Tensor&, const OptionalTensor&)>("tsattn::linear");
    ctx->save_for_backward({x, weight});
    ctx->saved_data["need_x"] = x.requires_grad();
    ctx->saved_data["need_weight"] = weight.requires_grad();
    ctx->saved_data["need_bias"] = bias.has_value() && bias->requires_grad();
    return compute.call(x, weight, bias);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<std::tuple<Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, bool, bool, bool)>("tsattn::linear_backward");
    const auto saved = ctx->get_saved_variables();
    auto& need = ctx->saved_data;
    const bool need_x = need["need_x"].toBool(), need_weight = need["need_weight"].toBool(),
               need_bias = need["need_bias"].toBool();
    auto [x, weight, bias] =
        compute.call(grads[0], saved[0], saved[1], need_x, need_weight, need_bias);
    return {
        need_x ? x : Tensor(), need_weight ? weight : Tensor(), need_bias ? bias : Tensor()};
  }
};

Tensor linear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return Linear::apply(x, weight, bias);
}

Tensor linear_autocast(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  c10::impl::ExcludeDispatchKeyGuard below(c10::DispatchKey::AutocastCPU);
  static const auto compute =
      find<Tensor(const Tensor&, const Tensor&, const OptionalTensor&)>("tsattn::linear");
  const auto dtype = at::autocast::get_autocast_dtype(at::kCPU);
  const auto cast = [&](const Tensor& t) {
    return at::autocast::cached_cast(dtype, t, c10::DeviceType::CPU);
  };
  const Tensor w = cast(weight);
  const bool as_it_is = x.scalar_type() == at::kFloat && is_dense(x, w); // rounded slice by slice
  return compute.call(
      as_it_is ? x : cast(x), w, bias.has_value() ? OptionalTensor(cast(*bias)) : OptionalTensor());
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("linear", &forward);
  m.impl("linear_backward", &backward);
}

TORCH_LIBRARY_IMPL(tsattn, Autograd, m) {
  m.impl("linear", &linear);
}

TORCH_LIBRARY_IMPL(tsattn, AutocastCPU, m) {
  m.impl("linear", &linear_autocast);
}

} // namespace tsattn
