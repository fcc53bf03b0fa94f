// Experts for narrow tokens: blocks of slots through the tile of the dense feed-forward, which stores
// no hidden units and computes them again in the backward pass.

#include "experts_cpu.h"

#include "expert_rows.h"

#include "../feedforward/feedforward_tile.h"

#include "../cpu/lasting.h"

#include <ATen/ops/zeros.h>

namespace tsattn {
namespace {

using at::Tensor;

static_assert(kBlockSlots % kTile == 0 && kBlockSlots % kSixteen == 0);

// A block's tokens side by side, and the tile that takes them. Made once a thread.
class NarrowBlocks {
 public:
  explicit NarrowBlocks(const ExpertsProblem& p)
      : p_(p),
        tokens_(kBlockSlots * p.width()),
        grad_(kBlockSlots * p.width()),
        result_(kBlockSlots * p.width()),
        weights_(kBlockSlots),
        dots_(kBlockSlots),
        problem_(whole_blocks(p, tokens_.data())),
        tile_(problem_) {}
  NarrowBlocks(const NarrowBlocks&) = delete;

  void forward(int64_t number, float* slots) {
    const Block& block = start(number);
    over_tiles(block, [&]<int R>(int64_t row, int64_t count) {
      tile_.template forward<R>(row, count, b2(block), result_.data());
    });
    copy_rows(result_.data(), order(block), block.count, p_.width(), slots);
  }

  void backward(
      int64_t number, const float* grad, FeedForwardGradients sums, float* slots,
      float* grad_weights) {
    const Block& block = start(number);
    gather(block, grad, grad_.data());
    const float* weights = p_.weights.const_data_ptr<float>();
    for (int64_t r = 0; r < block.count; ++r) {
      weights_[r] = weights[order(block)[r]];
    }
    sums.x = result_.data();
    const TokenWeights outer{weights_.data(), b2(block), dots_.data()};
    tile_.start_slice();
    over_tiles(block, [&]<int R>(int64_t row, int64_t count) {
      tile_.template backward<R, true>(row, count, grad_.data(), sums, outer);
    });
    tile_.finish_slice(sums);
    copy_rows(result_.data(), order(block), block.count, p_.width(), slots);
    for (int64_t r = 0; r < block.count; ++r) {
      grad_weights[order(block)[r]] = dots_[r];
    }
  }

 private:
  static FeedForward whole_blocks(const ExpertsProblem& p, const float* tokens) {
    FeedForward problem;
    problem.rows = kBlockSlots;
    problem.width = p.width();
    problem.hidden = p.hidden();
    problem.x = tokens;
    problem.dropout = p.dropout;
    return problem;
  }

  const Block& start(int64_t number) {
    const Block& block = p_.blocks.blocks[number];
    const int64_t matrix = block.expert * p_.hidden() * p_.width();
    problem_.w1 = p_.w1.const_data_ptr<float>() + matrix;
    problem_.w2 = p_.w2.const_data_ptr<float>() + matrix;
    problem_.b1 = p_.b1.const_data_ptr<float>() + block.expert * p_.hidden();
    problem_.part = number;
    gather(block, p_.x.const_data_ptr<float>(), tokens_.data());
    return block;
  }

  void gather(const Block& block, const float* from, float* to) const {
    gather_rows(from, order(block), block.count, p_.top_k, block.count, p_.width(), to);
  }

  template <class Body>
  static void over_tiles(const Block& block, Body&& body) {
    for (int64_t row = 0; row < block.count; row += kTile) {
      const int64_t count = std::min(kTile, block.count - row);
      with_vectors(count, [&]<int R>() { body.template operator()<R>(row, count); });
    }
  }

  const int64_t* order(const Block& block) const {
    return p_.order.const_data_ptr<int64_t>() + block.first;
  }

  const float* b2(const Block& block) const {
    return p_.b2.const_data_ptr<float>() + block.expert * p_.width();
  }

  const ExpertsProblem& p_;
  std::vector<float> tokens_, grad_, result_, weights_, dots_;
  FeedForward problem_;
  FeedForwardTile tile_;
};

} // namespace

void narrow_experts_forward(const ExpertsProblem& p, const Tensor& y) {
  const Tensor slots = empty_lasting({p.slots(), p.width()}, p.x.options());
  float* to = slots.mutable_data_ptr<float>();
  deal_out(
      p.blocks.blocks.size(), [&] { return std::make_unique<NarrowBlocks>(p); },
      [&](auto& worker, int64_t i) { worker->forward(i, to); });
  add_rows(
      slots.const_data_ptr<float>(), p.weights.const_data_ptr<float>(), p.tokens(), p.top_k,
      p.width(), y.mutable_data_ptr<float>());
}

void narrow_experts_backward(
    const ExpertsProblem& p, const Tensor& grad, const ExpertsGradients& out) {
  const auto& slices = p.blocks.slices;
  const int64_t count = slices.size(), width = p.width(), hidden = p.hidden();
  const auto zeros = [&](at::IntArrayRef sizes) { return at::zeros(sizes, p.x.options()); };
  const Tensor w1 = zeros({count, hidden, width}), b1 = zeros({count, hidden});
  const Tensor w2 = zeros({count, hidden, width}), b2 = zeros({count, width});
  const Tensor slots = empty_lasting({p.slots(), width}, p.x.options());
  const auto row = [](const Tensor& sums, int64_t s) {
    return sums.mutable_data_ptr<float>() + s * (sums.numel() / sums.size(0));
  };
  deal_out(
      count, [&] { return std::make_unique<NarrowBlocks>(p); },
      [&](auto& worker, int64_t s) {
        for (int64_t i = slices[s].first; i < slices[s].last; ++i) {
          worker->backward(
              i, grad.const_data_ptr<float>(),
              {nullptr, row(w1, s), row(b1, s), row(w2, s), row(b2, s)},
              slots.mutable_data_ptr<float>(), out.weights.mutable_data_ptr<float>());
        }
      });
  add_rows<float>(
      slots.const_data_ptr<float>(), nullptr, p.tokens(), p.top_k, width,
      out.x.mutable_data_ptr<float>());
  const Tensor turned = empty_lasting(p.w1.sizes(), p.w1.options());
  add_slices<float>(slices, w1, out.w1);
  add_slices<float>(slices, b1, out.b1);
  add_slices<float>(slices, w2, turned);
  add_slices<float>(slices, b2, out.b2);
  out.w2.copy_(turned.transpose(1, 2));
}

} // namespace tsattn
