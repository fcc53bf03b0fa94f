// Slices of rows times packed matrices (panels.h), and sums of outer products of rows.
//
// T is what is multiplied, float or pairs of bfloat16; rows may lie in memory as float beside either.
#pragma once

#include "dense.h"
#include "panels.h"

#include <ATen/Parallel.h>

#include <vector>

#if defined(TSATTN_PANELS)

namespace tsattn {
inline namespace CPU_CAPABILITY {

constexpr int64_t kSlice = (kLanes == 16 ? 4 : 8) * kStrip; // rows that stay in cache for all panels

inline int64_t pieces(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

// Rows of a slice. Few rows are dealt out evenly; every row is computed alike in either case.
inline int64_t slice_rows(int64_t rows) {
  return std::min(kSlice, round_up(pieces(rows, at::get_num_threads()), kStrip));
}

// How many products of a strip and a panel there are.
inline int64_t tiles_of(int64_t rows, int64_t columns) {
  return pieces(rows, kStrip) * pieces(columns, kPanel);
}

// Packs W' (`turned`) or W, of a W [rows, columns].
template <class T>
Panels pack_matrix(const T* w, int64_t rows, int64_t columns, bool turned, float* words) {
  const int64_t inner = (turned ? columns : rows) / kPerWord<T>;
  const int64_t outer = turned ? rows : columns;
  const int64_t grain = std::max<int64_t>(1, 32768 / (inner * kPanel));
  at::parallel_for(0, pieces(outer, kPanel), grain, [&](int64_t p, int64_t end) {
    for (; p < end; ++p) {
      float* panel = words + p * inner * kPanel;
      const int64_t count = std::min(kPanel, outer - p * kPanel);
      if (turned) { // neighbours on the inner axis are neighbours already
        const auto* rows_of_words = reinterpret_cast<const float*>(w) + p * kPanel * inner;
        transpose(rows_of_words, inner, count, inner, panel, kPanel);
      } else {
        pack_rows<T>(w + p * kPanel, columns, rows, count, panel, kPanel);
      }
    }
  });
  return {words, inner, outer};
}

// Rows as words: in place or, where their type is another or their distance a whole number of pages
// (they would share a few sets of the first cache), moved.
template <class T, class X>
class SliceWords {
 public:
  explicit SliceWords(int64_t width)
      : width_(width),
        inner_(width / kPerWord<T>),
        moved_(!std::is_same_v<T, X> || inner_ % 1024 == 0),
        memory_(moved_ ? kSlice * (inner_ + kLanes) : 0) {}

  int64_t ld() const { return inner_ + (moved_ ? kLanes : 0); }

  const float* of(const X* x, int64_t rows) {
    if (!moved_) {
      return reinterpret_cast<const float*>(x);
    }
    for (int64_t r = 0; r < rows; ++r) {
      narrow(x + r * width_, reinterpret_cast<T*>(&memory_[r * ld()]), width_);
    }
    return memory_.data();
  }

 private:
  static void narrow(const X* from, T* to, int64_t n) {
    if constexpr (std::is_same_v<T, X>) {
      std::memcpy(to, from, n * sizeof(T));
    } else {
      tsattn::narrow(from, to, n);
    }
  }

  int64_t width_, inner_;
  bool moved_;
  std::vector<float> memory_;
};

// Calls body(first row, rows) for slices of all rows, from several threads; make() makes a body for
// each of them.
template <class Make>
void for_slices(int64_t rows, int64_t step, Make&& make) {
  at::parallel_for(0, pieces(rows, step), 1, [&](int64_t begin, int64_t end) {
    auto body = make();
    for (int64_t s = begin; s < end; ++s) {
      body(s * step, std::min(step, rows - s * step));
    }
  });
}

constexpr int64_t kTileFloats = kStrip * kPanel; // sums of a strip of features and a panel of the width

// The sums of a weight's gradient [features, width], and how they are shared out, whatever the number
// of threads.
struct Sums {
  int64_t width, features, strips, panels;
  int64_t segments, segment_rows; // of the rows, each with sums of its own
  int64_t groups, group_strips; // of the strips

  static constexpr int64_t kItems = 16; // to be shared out among threads

  Sums(int64_t rows, int64_t width_, int64_t features_)
      : width(width_), features(features_), strips(pieces(features, kStrip)), panels(pieces(width, kPanel)) {
    constexpr int64_t kFloats = int64_t{1} << 22, kRows = 512;
    const int64_t most = std::min(kItems, std::max<int64_t>(1, kFloats / floats()));
    segments = std::max<int64_t>(1, std::min(most, pieces(rows, kRows)));
    segment_rows = std::max<int64_t>(2, round_up(pieces(rows, segments), 2));
    groups = std::min(strips, pieces(kItems, segments));
    group_strips = pieces(strips, groups);
    groups = pieces(strips, group_strips);
  }
  int64_t floats() const { return strips * panels * kTileFloats; } // of a segment
  int64_t first_row(int64_t segment) const { return segment * segment_rows; }

  // Adds up the tiles of one strip over the segments, and writes its rows of y [features, width].
  template <class T>
  void join(int64_t strip, float* sums, T* y) const {
    const int64_t rows = std::min(kStrip, features - strip * kStrip);
    for (int64_t n = 0; n < panels; ++n) {
      float* tile = sums + (strip * panels + n) * kTileFloats;
      for (int64_t s = 1; s < segments; ++s) {
        const float* more = tile + s * floats();
        for (int64_t i = 0; i < kTileFloats; i += kLanes) {
          (Vec::loadu(tile + i) + Vec::loadu(more + i)).store(tile + i);
        }
      }
      for (int64_t m = 0; m < rows; ++m) {
        T* to = y + (strip * kStrip + m) * width + n * kPanel;
        narrow(tile + m * kPanel, to, std::min(kPanel, width - n * kPanel));
      }
    }
  }

  template <class T>
  void join_all(float* sums, T* y) const {
    at::parallel_for(0, strips, 1, [&](int64_t strip, int64_t end) {
      for (; strip < end; ++strip) {
        join(strip, sums, y);
      }
    });
  }
};

// Adds outer products of rows to sums [strip][panel][kStrip][kPanel], in packed form.
template <class T>
class OuterProducts {
 public:
  static constexpr int64_t kSteps = 128; // at a time: a panel and a strip share the first cache
  static constexpr int64_t kRows = kSteps * kPerWord<T>;

  OuterProducts(const Sums& shape, int64_t strips)
      : shape_(shape), panel_(kSteps * kPanel), strips_(strips * kSteps * kStripWords) {}

  // sums of strips [first, last) += grad' x, of at most kRows rows
  template <class G, class X>
  void add(
      const G* grad, const X* x, int64_t rows, int64_t first, int64_t last, Ahead& ahead,
      float* sums) {
    const int64_t steps = pieces(rows, kPerWord<T>);
    const auto strip = [&](int64_t s) { return strips_.data() + (s - first) * kSteps * kStripWords; };
    for (int64_t s = first; s < last; ++s) {
      const int64_t f = s * kStrip, count = std::min(kStrip, shape_.features - f);
      pack_rows<T>(grad + f, shape_.features, rows, count, strip(s), kStripWords);
    }
    for (int64_t n = 0; n < shape_.panels; ++n) {
      const int64_t at = n * kPanel, count = std::min(kPanel, shape_.width - at);
      pack_rows<T>(x + at, shape_.width, rows, count, panel_.data(), kPanel);
      for (int64_t s = first; s < last; ++s) {
        ahead.fetch();
        add_tile(strip(s), steps, sums + (s * shape_.panels + n) * kTileFloats);
      }
    }
  }

 private:
  __attribute__((noinline)) void add_tile(const float* strip, int64_t steps, float* sums) {
    Vec c[kStrip][2];
#pragma GCC unroll 14
    for (int m = 0; m < kStrip; ++m) {
      __builtin_prefetch(sums + m * kPanel);
      __builtin_prefetch(sums + m * kPanel + kLanes);
      c[m][0] = Vec(0.0f);
      c[m][1] = Vec(0.0f);
    }
    add_strip<T, kStrip, 2>(strip, 1, kStripWords, panel_.data(), steps, c);
#pragma GCC unroll 14
    for (int m = 0; m < kStrip; ++m) {
      float* to = sums + m * kPanel;
      (Vec::loadu(to) + c[m][0]).store(to);
      (Vec::loadu(to + kLanes) + c[m][1]).store(to + kLanes);
    }
  }

  const Sums& shape_;
  std::vector<float> panel_, strips_;
};

} // namespace CPU_CAPABILITY
} // namespace tsattn

#endif
