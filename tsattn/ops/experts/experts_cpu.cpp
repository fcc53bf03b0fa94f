// Blocks of slots through both products of their expert, while they are in cache.
//
// Of a slot with weight w, token x and expert W_1, b_1, W_2, b_2: h = W_1 x + b_1, a = drop(act(h)),
// y = w (W_2 a + b_2). With g the gradient of the token's output and u = W_2' g:
//   dw = u . a + g . b_2    dh = w drop(u) act'(h)    dx = W_1' dh
//   dW_1 = dh x'    db_1 = dh    dW_2 = g (w a)'    db_2 = w g
// The slots of a token are written side by side and then added up; gradients of weights are summed
// over slices of blocks, and the slices in their order.

#include "experts_cpu.h"

#include "expert_rows.h"

#include "../cpu/lasting.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

namespace tsattn {
namespace {

using at::Tensor;

template <class T>
T* data(const Tensor& x) {
  return x.mutable_data_ptr<T>();
}

template <class T>
const T* numbers(const Tensor& x) {
  return x.const_data_ptr<T>();
}

std::vector<Tensor> per_expert(const Tensor& stack) {
  return stack.unbind(0);
}

std::vector<Tensor> turned(const Tensor& stack) {
  return stack.transpose(1, 2).unbind(0);
}

// Scratch of one thread.
template <class T>
class BlockScratch {
 public:
  explicit BlockScratch(const ExpertsProblem& p)
      : p_(p),
        tokens_(make(p.width())),
        result_(make(p.width())),
        before_(make(p.hidden())),
        hidden_(make(p.hidden())) {}

  // Kernels of products keep to few sizes in bfloat16, where a new one costs more than it computes.
  static int64_t padded(int64_t count) {
    return std::is_same_v<T, float> ? count : round_up(count, kBlockStep);
  }

  HiddenBlock hidden_block(int64_t number, int64_t rows) const {
    const int64_t groups = kBlockSlots / kSixteen * (p_.hidden() / kSixteen);
    return {rows, p_.blocks.blocks[number].count, p_.hidden(), number * groups, p_.dropout};
  }

  void gather(const Block& block, const Tensor& from, int64_t rows, const Tensor& to) const {
    gather_rows(
        numbers<T>(from), slots(block), block.count, p_.top_k, rows, p_.width(),
        data<T>(to));
  }

  const int64_t* slots(const Block& block) const {
    return numbers<int64_t>(p_.order) + block.first;
  }

 protected:
  Tensor make(int64_t width) const {
    return empty_lasting({kBlockSlots, width}, p_.x.options());
  }

  const ExpertsProblem& p_;
  Tensor tokens_, result_, before_, hidden_;
};

template <class T>
class Forward : public BlockScratch<T> {
 public:
  Forward(const ExpertsProblem& p, const std::vector<Tensor>& w1, const std::vector<Tensor>& w2)
      : BlockScratch<T>(p), w1_(w1), w2_(w2) {}

  void run(int64_t number, const Tensor& stored, T* slots) {
    const Block& block = p_.blocks.blocks[number];
    const int64_t rows = this->padded(block.count), e = block.expert, width = p_.hidden();
    Tensor x = tokens_.narrow(0, 0, rows), h = before_.narrow(0, 0, rows);
    Tensor a = hidden_.narrow(0, 0, rows), y = result_.narrow(0, 0, rows);
    this->gather(block, p_.x, rows, x);
    at::mm_out(h, x, w1_[e]);
    T* kept = stored.defined() ? data<T>(stored) + block.first * width : nullptr;
    const float* bias = numbers<float>(p_.b1) + e * width;
    with_activation(p_.activation, [&]<Activation A>() {
      activate_block<A>(this->hidden_block(number, rows), data<T>(h), bias, kept, data<T>(a));
    });
    at::mm_out(y, a, w2_[e]);
    scatter_rows(
        data<T>(y), numbers<float>(p_.b2) + e * p_.width(), this->slots(block),
        block.count, p_.width(), slots);
  }

 private:
  using BlockScratch<T>::p_;
  using BlockScratch<T>::tokens_;
  using BlockScratch<T>::before_;
  using BlockScratch<T>::hidden_;
  using BlockScratch<T>::result_;
  const std::vector<Tensor>&w1_, &w2_;
};

// Gradients of the weights of one slice, in float.
struct SliceSums {
  Tensor w1, b1, w2, b2;
};

template <class T>
class Backward : public BlockScratch<T> {
 public:
  Backward(const ExpertsProblem& p, const std::vector<Tensor>& w1, const std::vector<Tensor>& w2)
      : BlockScratch<T>(p),
        w1_(w1),
        w2_(w2),
        grad_(this->make(p.width())),
        rounded_(empty_lasting({p.hidden() * p.width()}, p.x.options())),
        weights_(kBlockSlots),
        dots_(kBlockSlots) {}

  void run(
      int64_t number, const Tensor& grad, const Tensor& before, const SliceSums& sums,
      T* slots, float* grad_weights) {
    const Block& block = p_.blocks.blocks[number];
    const int64_t rows = this->padded(block.count), e = block.expert;
    const int64_t* order = this->slots(block);
    Tensor x = tokens_.narrow(0, 0, rows), g = grad_.narrow(0, 0, rows);
    Tensor u = before_.narrow(0, 0, rows), a = hidden_.narrow(0, 0, rows);
    Tensor to_x = result_.narrow(0, 0, rows);
    for (int64_t r = 0; r < block.count; ++r) {
      weights_[r] = numbers<float>(p_.weights)[order[r]];
    }
    this->gather(block, grad, rows, g);
    at::mm_out(u, g, w2_[e]);
    const T* h = numbers<T>(before) + block.first * p_.hidden();
    with_activation(p_.activation, [&]<Activation A>() {
      differentiate_block<A>(
          this->hidden_block(number, rows), h, weights_.data(), data<T>(u), data<T>(a),
          data<float>(sums.b1), dots_.data());
    });
    differentiate_bias(
        data<T>(g), weights_.data(), numbers<float>(p_.b2) + e * p_.width(), block.count,
        p_.width(), data<float>(sums.b2), dots_.data());
    add_product(sums.w2, g, a);
    this->gather(block, p_.x, rows, x);
    add_product(sums.w1, u, x);
    at::mm_out(to_x, u, w1_[e]);
    copy_rows(data<T>(to_x), order, block.count, p_.width(), slots);
    for (int64_t r = 0; r < block.count; ++r) {
      grad_weights[order[r]] = dots_[r];
    }
  }

 private:
  // sum += left' right
  void add_product(const Tensor& sum, const Tensor& left, const Tensor& right) {
    if constexpr (std::is_same_v<T, float>) {
      Tensor target = sum;
      at::addmm_out(target, sum, left.t(), right);
    } else {
      Tensor product = rounded_.view(sum.sizes());
      at::mm_out(product, left.t(), right);
      add_to(data<T>(product), product.numel(), data<float>(sum));
    }
  }

  using BlockScratch<T>::p_;
  using BlockScratch<T>::tokens_;
  using BlockScratch<T>::before_;
  using BlockScratch<T>::hidden_;
  using BlockScratch<T>::result_;
  const std::vector<Tensor>&w1_, &w2_;
  Tensor grad_, rounded_;
  std::vector<float> weights_, dots_;
};

} // namespace

template <class T>
void experts_forward(const ExpertsProblem& p, const Tensor& before, const Tensor& y) {
  const auto w1 = turned(p.w1), w2 = turned(p.w2);
  const Tensor slots = empty_lasting({p.slots(), p.width()}, p.x.options());
  deal_out(
      p.blocks.blocks.size(), [&] { return Forward<T>(p, w1, w2); },
      [&](Forward<T>& worker, int64_t i) { worker.run(i, before, data<T>(slots)); });
  add_rows(
      data<T>(slots), numbers<float>(p.weights), p.tokens(), p.top_k, p.width(),
      data<T>(y));
}

template <class T>
void experts_backward(
    const ExpertsProblem& p, const Tensor& grad, const Tensor& before,
    const ExpertsGradients& out) {
  const auto w1 = per_expert(p.w1), w2 = per_expert(p.w2);
  const auto& slices = p.blocks.slices;
  const int64_t count = slices.size(), width = p.width(), hidden = p.hidden();
  const auto zeros = [&](at::IntArrayRef sizes) {
    return at::zeros(sizes, p.x.options().dtype(at::kFloat));
  };
  const Tensor slots = empty_lasting({p.slots(), width}, p.x.options());
  const SliceSums sums{
      zeros({count, hidden, width}), zeros({count, hidden}), zeros({count, width, hidden}),
      zeros({count, width})};
  deal_out(
      count, [&] { return Backward<T>(p, w1, w2); },
      [&](Backward<T>& worker, int64_t s) {
        const SliceSums here{sums.w1[s], sums.b1[s], sums.w2[s], sums.b2[s]};
        for (int64_t i = slices[s].first; i < slices[s].last; ++i) {
          worker.run(i, grad, before, here, data<T>(slots), data<float>(out.weights));
        }
      });
  add_rows<T>(data<T>(slots), nullptr, p.tokens(), p.top_k, width, data<T>(out.x));
  add_slices<T>(slices, sums.w1, out.w1);
  add_slices<float>(slices, sums.b1, out.b1);
  add_slices<T>(slices, sums.w2, out.w2);
  add_slices<float>(slices, sums.b2, out.b2);
}

#define TSATTN_INSTANTIATE(T) \
  template void experts_forward<T>(const ExpertsProblem&, const Tensor&, const Tensor&); \
  template void experts_backward<T>( \
      const ExpertsProblem&, const Tensor&, const Tensor&, const ExpertsGradients&);
TSATTN_INSTANTIATE(float)
TSATTN_INSTANTIATE(c10::BFloat16)

} // namespace tsattn
