// Layer by layer, a group of sequences at a time.

#include "encoder_cpu.h"

#include "../attention/forward_head.h"
#include "../linear/slices.h"

#include <cmath>
#include <deque>
#include <memory>

namespace tsattn {

int64_t encoder_scratch(int64_t layers, int64_t width, int64_t hidden) {
  return layers *
      (dense_scratch(width, 3 * width) + dense_scratch(width, width) +
       2 * dense_scratch(width, hidden));
}

#if defined(TSATTN_PANELS)

namespace {

template <class T>
struct PackedLayer {
  Panels qkv, out, expand, contract;

  PackedLayer(const Encoder<T>& p, const LayerWeights<T>& w, float* scratch) {
    const auto pack = [&](const T* weight, int64_t features, int64_t width) {
      float* here = scratch;
      scratch += dense_scratch(width, features);
      return pack_matrix(weight, features, width, true, here);
    };
    qkv = pack(w.qkv, 3 * p.width, p.width);
    out = pack(w.out, p.width, p.width);
    expand = pack(w.expand, p.hidden, p.width);
    contract = pack(w.contract, p.width, p.hidden);
  }
};

// (residual + sum) scale + shift
struct Normalised {
  const float* residual;
  int64_t features;
  const float *scale, *shift;

  TSATTN_INLINE Vec
  operator()(int64_t row, int64_t column, const Tail& lanes, const Vec& sum) const {
    const Vec total = lanes.load(residual + row * features + column) + sum;
    return at::vec::fmadd(total, lanes.load(scale + column), lanes.load(shift + column));
  }
};

// What one thread needs to take groups of sequences through all layers.
template <class T>
class Group {
 public:
  Group(const Encoder<T>& p, const std::vector<PackedLayer<T>>& packed, int64_t sequences)
      : p_(p),
        packed_(packed),
        rows_(sequences * p.length),
        tokens_(rows_ * p.width + kLanes),
        stats_(2 * sequences * p.heads * p.length),
        hidden_(kSlice * p.hidden + kLanes),
        mixed_(rows_ * p.width + 2 * kLanes),
        words_(std::is_same_v<T, float> ? 0 : rows_ * p.width + 2 * kLanes),
        hidden_words_(std::is_same_v<T, float> ? 0 : kSlice * p.hidden + 2 * kLanes) {
    for (size_t l = 0; l < p.layers.size(); ++l) {
      projections_.emplace_back(rows_ * 3 * p.width + 2 * kLanes);
    }
    for (size_t l = 0; l < p.layers.size(); ++l) {
      problems_.push_back(problem(l, sequences));
      heads_.push_back(std::make_unique<Head>(problems_.back()));
    }
  }
  Group(const Group&) = delete;

  void run(int64_t first, int64_t sequences) {
    const int64_t at = first * p_.length * p_.width, rows = sequences * p_.length;
    std::copy_n(p_.x + at, rows * p_.width, tokens_.data());
    for (size_t l = 0; l < p_.layers.size(); ++l) {
      multiply(as_words(tokens_.data(), rows * p_.width, words_), p_.width, rows, packed_[l].qkv,
               p_.layers[l].qkv_bias, projections_[l].data());
      attend(*heads_[l], sequences);
      join_attention(l, rows);
      feed(l, rows);
    }
    std::copy_n(tokens_.data(), rows * p_.width, p_.y + at);
  }

 private:
  using Head = ForwardHead<T, ForwardProducts<T>>;

  ForwardProblem<T> problem(size_t layer, int64_t sequences) {
    const int64_t width = p_.width, row = 3 * width, head = width / p_.heads;
    const auto part = [&](size_t l, int64_t which) {
      return HeadsView<const T>{
          projections_[l].data() + which * width, p_.length * row, head, row};
    };
    ForwardProblem<T> problem;
    problem.batch = sequences;
    problem.heads = p_.heads;
    problem.queries = problem.keys = p_.length;
    problem.value_width = head;
    for (size_t l = p_.residual_scores ? 0 : layer; l <= layer; ++l) {
      problem.factors.push_back({part(l, 0), part(l, 1), head});
      problem.width += head;
    }
    problem.v = part(layer, 2);
    problem.scale = 1.0f / std::sqrt(static_cast<float>(head));
    problem.activation = p_.activation;
    problem.stats = stats_.data();
    problem.out = {mixed_.data(), p_.length * width, head, width};
    return problem;
  }

  void attend(Head& head, int64_t sequences) {
    const Tiles tiles(p_.length);
    for (int64_t i = 0; i < sequences * p_.heads; ++i) {
      head.start(i);
      for (int64_t t = 0; t < tiles.count; ++t) {
        with_vectors(tiles.size(t), [&]<int R>() {
          head.template tile<R>(t * tiles.step, tiles.size(t));
        });
      }
    }
  }

  void join_attention(size_t l, int64_t rows) {
    const LayerWeights<T>& w = p_.layers[l];
    const Normalised norm{tokens_.data(), p_.width, w.attention_scale, w.attention_shift};
    multiply(mixed_.data(), p_.width, rows, packed_[l].out, w.out_bias, tokens_.data(), norm);
  }

  // Hidden units of a slice of tokens stay in the first caches.
  void feed(size_t l, int64_t rows) {
    const LayerWeights<T>& w = p_.layers[l];
    for (int64_t r = 0; r < rows; r += kSlice) {
      const int64_t count = std::min(kSlice, rows - r);
      float* tokens = tokens_.data() + r * p_.width;
      multiply(as_words(tokens, count * p_.width, words_), p_.width, count, packed_[l].expand,
               w.expand_bias, hidden_.data());
      activate(Activation::kGelu, hidden_.data(), hidden_.data(), count * p_.hidden);
      const Normalised norm{tokens, p_.width, w.feedforward_scale, w.feedforward_shift};
      multiply(as_words(hidden_.data(), count * p_.hidden, hidden_words_), p_.hidden, count,
               packed_[l].contract, w.contract_bias, tokens, norm);
    }
  }

  static const T* as_words(const float* x, int64_t n, std::vector<T>& words) {
    if constexpr (std::is_same_v<T, float>) {
      return x;
    } else {
      narrow(x, words.data(), n);
      return words.data();
    }
  }

  template <class Y, class Finish = AsItIs>
  static void multiply(
      const T* x, int64_t width, int64_t rows, const Panels& b, const float* bias, Y* y,
      const Finish& finish = {}) {
    const auto* words = reinterpret_cast<const float*>(x);
    slice_product<T>(words, width / kPerWord<T>, rows, b, bias, y, b.columns, {}, finish);
  }

  const Encoder<T>& p_;
  const std::vector<PackedLayer<T>>& packed_;
  int64_t rows_;
  std::vector<float> tokens_, stats_, hidden_;
  std::vector<T> mixed_, words_, hidden_words_;
  std::vector<std::vector<T>> projections_; // queries, keys and values of each layer
  std::deque<ForwardProblem<T>> problems_; // their addresses last
  std::vector<std::unique_ptr<Head>> heads_;
};

// About two slices of tokens, and as many groups as keep all threads busy.
template <class T>
int64_t group_size(const Encoder<T>& p) {
  const int64_t most = std::max<int64_t>(1, 2 * kSlice / p.length);
  return std::clamp<int64_t>(p.sequences / (4 * at::get_num_threads()), 1, most);
}

} // namespace

template <class T>
bool encoder_fits(int64_t width, int64_t hidden) {
  constexpr int64_t kLongest = 1024; // features on any side: weights and tokens stay near
  return width > 0 && hidden > 0 && width % 16 == 0 && hidden % 16 == 0 && std::max(3 * width, hidden) <= kLongest &&
      dense_runs<T>();
}

template <class T>
void encode(const Encoder<T>& p, float* scratch) {
  std::vector<PackedLayer<T>> packed;
  for (const LayerWeights<T>& weights : p.layers) {
    packed.emplace_back(p, weights, scratch);
    scratch += encoder_scratch(1, p.width, p.hidden);
  }
  const int64_t size = group_size(p);
  at::parallel_for(0, pieces(p.sequences, size), 1, [&](int64_t begin, int64_t end) {
    Group<T> group(p, packed, size);
    for (int64_t g = begin; g < end; ++g) {
      group.run(g * size, std::min(size, p.sequences - g * size));
    }
  });
}

#else

template <class T>
bool encoder_fits(int64_t, int64_t) {
  return false;
}

template <class T>
void encode(const Encoder<T>&, float*) {}

#endif

template bool encoder_fits<float>(int64_t, int64_t);
template bool encoder_fits<c10::BFloat16>(int64_t, int64_t);
template void encode<float>(const Encoder<float>&, float*);
template void encode<c10::BFloat16>(const Encoder<c10::BFloat16>&, float*);

} // namespace tsattn
