// From a gate's logits to sorted slots: rows of a few numbers, for which torch's own loops over an
// axis are slow. Schemas in fused_cpu.py.

#include "../cpu/autograd.h"
#include "../cpu/lasting.h"
#include "../cpu/simd.h"

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <vector>

namespace tsattn {
namespace {

using torch::autograd::Function;
using Two = std::tuple<Tensor, Tensor>;
constexpr int64_t kGrain = 1024; // rows

void check_rows(const Tensor& x) {
  TORCH_CHECK(
      x.dim() == 2 && x.scalar_type() == at::kFloat, "expected float32 rows, got ",
      x.scalar_type(), " ", x.sizes());
}

// Calls body(row) in parallel.
template <class Body>
void over_rows(int64_t rows, Body&& body) {
  at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      body(r);
    }
  });
}

// Calls body(column, lanes) for every vector of a row.
template <class Body>
TSATTN_INLINE void over_columns(int64_t columns, Body&& body) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    body(c, std::min(kLanes, columns - c));
  }
}

TSATTN_INLINE float sum_of(const Vec& x) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, x);
}

void softmax_row(const float* x, int64_t columns, float* y) {
  float highest = x[0];
  for (int64_t c = 1; c < columns; ++c) {
    highest = x[c] > highest ? x[c] : highest;
  }
  Vec sum(0.0f);
  over_columns(columns, [&](int64_t c, int64_t lanes) {
    const Tail tail(lanes);
    const Vec e = tail.only(exp(tail.load(x + c) - Vec(highest)));
    sum = sum + e;
    tail.store(y + c, e);
  });
  const float total = sum_of(sum);
  over_columns(columns, [&](int64_t c, int64_t lanes) {
    const Tail tail(lanes);
    tail.store(y + c, tail.load(y + c) / Vec(total));
  });
}

Tensor softmax_rows(const Tensor& x) {
  check_rows(x);
  const Tensor rows = x.contiguous(), y = empty_lasting(x.sizes(), x.options());
  const int64_t columns = x.size(1);
  const float* from = rows.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  over_rows(columns > 0 ? x.size(0) : 0, [&](int64_t r) {
    softmax_row(from + r * columns, columns, to + r * columns);
  });
  return y;
}

// y (g - g . y)
Tensor softmax_rows_backward(const Tensor& grad, const Tensor& output) {
  check_rows(grad);
  TORCH_CHECK(grad.sizes() == output.sizes(), "expected a gradient of ", output.sizes());
  const Tensor g = grad.contiguous(), y = output.contiguous();
  const Tensor to = empty_lasting(grad.sizes(), grad.options());
  const int64_t columns = grad.size(1);
  over_rows(grad.size(0), [&](int64_t r) {
    const float* here = g.const_data_ptr<float>() + r * columns;
    const float* value = y.const_data_ptr<float>() + r * columns;
    float* out = to.mutable_data_ptr<float>() + r * columns;
    Vec dots(0.0f);
    over_columns(columns, [&](int64_t c, int64_t lanes) {
      const Tail tail(lanes);
      dots = at::vec::fmadd(tail.load(here + c), tail.load(value + c), dots);
    });
    const Vec dot(sum_of(dots));
    over_columns(columns, [&](int64_t c, int64_t lanes) {
      const Tail tail(lanes);
      tail.store(out + c, tail.load(value + c) * (tail.load(here + c) - dot));
    });
  });
  return to;
}

// The lower index wins among equals; NaN and minus infinity count as the lowest finite number.
void largest_row(const float* x, int64_t columns, int64_t top_k, int64_t* indices, float* left) {
  constexpr float lowest = std::numeric_limits<float>::lowest();
  constexpr float taken = -std::numeric_limits<float>::infinity();
  for (int64_t c = 0; c < columns; ++c) {
    left[c] = x[c] >= lowest ? x[c] : lowest;
  }
  for (int64_t k = 0; k < top_k; ++k) {
    int64_t winner = 0;
    float highest = left[0];
    for (int64_t c = 1; c < columns; ++c) {
      winner = left[c] > highest ? c : winner;
      highest = left[c] > highest ? left[c] : highest;
    }
    indices[k] = winner;
    left[winner] = taken;
  }
}

Tensor largest(const Tensor& scores, int64_t top_k) {
  check_rows(scores);
  const int64_t columns = scores.size(1);
  TORCH_CHECK(
      top_k >= 1 && top_k <= columns, "expected between 1 and ", columns, " of them, got ", top_k);
  const Tensor rows = scores.contiguous();
  const Tensor indices = empty_lasting({scores.size(0), top_k}, scores.options().dtype(at::kLong));
  const float* from = rows.const_data_ptr<float>();
  int64_t* to = indices.mutable_data_ptr<int64_t>();
  at::parallel_for(0, scores.size(0), kGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> left(columns);
    for (int64_t r = begin; r < end; ++r) {
      largest_row(from + r * columns, columns, top_k, to + r * top_k, left.data());
    }
  });
  return indices;
}

Two sort_slots(const Tensor& chosen, int64_t experts) {
  TORCH_CHECK(chosen.scalar_type() == at::kLong, "expected int64, got ", chosen.scalar_type());
  TORCH_CHECK(experts >= 1, "expected at least one expert, got ", experts);
  const Tensor flat = chosen.contiguous();
  const int64_t slots = flat.numel();
  const int64_t* expert = flat.const_data_ptr<int64_t>();
  const Tensor order = empty_lasting({slots}, chosen.options());
  const Tensor counts = at::zeros({experts}, chosen.options());
  int64_t* each = counts.mutable_data_ptr<int64_t>();
  for (int64_t s = 0; s < slots; ++s) {
    TORCH_CHECK(expert[s] >= 0 && expert[s] < experts, "there is no expert ", expert[s]);
    ++each[expert[s]];
  }
  std::vector<int64_t> next(experts, 0);
  for (int64_t e = 1; e < experts; ++e) {
    next[e] = next[e - 1] + each[e - 1];
  }
  int64_t* place = order.mutable_data_ptr<int64_t>();
  for (int64_t s = 0; s < slots; ++s) {
    place[next[expert[s]]++] = s;
  }
  return {order, counts};
}

class SoftmaxRows : public Function<SoftmaxRows> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<Tensor(const Tensor&)>("tsattn::softmax_rows");
    const Tensor y = compute.call(x);
    ctx->save_for_backward({y});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute =
        find<Tensor(const Tensor&, const Tensor&)>("tsattn::softmax_rows_backward");
    return {compute.call(grads[0], ctx->get_saved_variables()[0])};
  }
};

Tensor softmax_rows_recorded(const Tensor& x) {
  return SoftmaxRows::apply(x);
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("softmax_rows", &softmax_rows);
  m.impl("softmax_rows_backward", &softmax_rows_backward);
  m.impl("largest", &largest);
  m.impl("sort_slots", &sort_slots);
}

TORCH_LIBRARY_IMPL(tsattn, Autograd, m) {
  m.impl("softmax_rows", &softmax_rows_recorded);
}

} // namespace tsattn
