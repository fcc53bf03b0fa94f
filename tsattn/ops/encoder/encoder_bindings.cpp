// Tensors in, tensors out, as tsattn/ops/attention/attention_bindings.cpp does for attention.

#include "encoder_cpu.h"

#include "../cpu/lasting.h"

#include <torch/library.h>

namespace {

using at::Tensor;

constexpr int64_t kTensors = 12; // of a layer

bool is_compiled(int64_t width, int64_t hidden, at::ScalarType dtype) {
  return dtype == at::kFloat ? tsattn::encoder_fits<float>(width, hidden)
      : dtype == at::kBFloat16 && tsattn::encoder_fits<c10::BFloat16>(width, hidden);
}

// The tensors of all layers, contiguous; matrices of one dtype, everything else in float32.
class Weights {
 public:
  Weights(at::TensorList given, int64_t width) : width_(width) {
    TORCH_CHECK(
        !given.empty() && given.size() % kTensors == 0, "expected ", kTensors,
        " tensors for each layer, got ", given.size());
    dtype_ = given[0].scalar_type();
    TORCH_CHECK(given[4].dim() == 2, "expected a matrix, got ", given[4].sizes());
    hidden_ = given[4].size(0);
    for (size_t i = 0; i < given.size(); ++i) {
      const bool is_matrix = i % kTensors < 8 && i % 2 == 0;
      const auto sizes = sizes_of(i % kTensors);
      TORCH_CHECK(given[i].sizes() == sizes, "expected ", sizes, ", got ", given[i].sizes());
      TORCH_CHECK(!is_matrix || given[i].scalar_type() == dtype_, "expected matrices of one dtype");
      kept_.push_back(is_matrix ? given[i].contiguous() : given[i].to(at::kFloat).contiguous());
    }
  }

  at::ScalarType dtype() const { return dtype_; }
  int64_t hidden() const { return hidden_; }
  int64_t layers() const { return static_cast<int64_t>(kept_.size()) / kTensors; }

  template <class T>
  tsattn::LayerWeights<T> layer(int64_t l) const {
    const auto matrix = [&](int64_t i) { return kept_[l * kTensors + i].const_data_ptr<T>(); };
    const auto row = [&](int64_t i) { return kept_[l * kTensors + i].const_data_ptr<float>(); };
    return {matrix(0), matrix(2), matrix(4), matrix(6), row(1), row(3),
            row(5),    row(7),    row(8),    row(9),    row(10), row(11)};
  }

 private:
  std::vector<int64_t> sizes_of(int64_t which) const {
    switch (which) {
      case 0:
        return {3 * width_, width_};
      case 1:
        return {3 * width_};
      case 2:
        return {width_, width_};
      case 4:
        return {hidden_, width_};
      case 5:
        return {hidden_};
      case 6:
        return {width_, hidden_};
      default:
        return {width_};
    }
  }

  int64_t width_, hidden_ = 0;
  at::ScalarType dtype_;
  std::vector<Tensor> kept_;
};

Tensor encode(
    const Tensor& x_, at::TensorList tensors, int64_t heads, int64_t activation,
    bool residual_scores) {
  TORCH_CHECK(
      x_.dim() == 3 && x_.scalar_type() == at::kFloat, "expected float32 tokens [batch, length, "
      "width], got ", x_.scalar_type(), " ", x_.sizes());
  const int64_t width = x_.size(2);
  TORCH_CHECK(heads > 0 && width % heads == 0, "expected ", width, " features in ", heads, " heads");
  TORCH_CHECK(activation >= 0 && activation <= 5, "no activation has the number ", activation);
  const Weights weights(tensors, width);
  TORCH_CHECK(
      is_compiled(width, weights.hidden(), weights.dtype()), "layers of ", width, " and ",
      weights.hidden(), " features in ", weights.dtype(), " are not computed here");
  const Tensor x = x_.contiguous();
  Tensor y = tsattn::empty_lasting(x.sizes(), x.options());
  if (x.numel() == 0) {
    return y;
  }
  Tensor scratch = tsattn::empty_lasting(
      {tsattn::encoder_scratch(weights.layers(), width, weights.hidden())}, x.options());
  const auto run = [&]<class T>() {
    tsattn::Encoder<T> p{
        x.size(0), x.size(1), width, weights.hidden(), heads,
        static_cast<tsattn::Activation>(activation), residual_scores, {},
        x.const_data_ptr<float>(), y.mutable_data_ptr<float>()};
    for (int64_t l = 0; l < weights.layers(); ++l) {
      p.layers.push_back(weights.layer<T>(l));
    }
    tsattn::encode(p, scratch.mutable_data_ptr<float>());
  };
  weights.dtype() == at::kFloat ? run.operator()<float>() : run.operator()<c10::BFloat16>();
  return y;
}

} // namespace

TORCH_LIBRARY_FRAGMENT(tsattn, m) {
  m.def("encodes(int width, int hidden, ScalarType dtype) -> bool", &is_compiled);
}

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("encode", &encode);
}
