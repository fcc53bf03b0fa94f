// Slots sorted by expert, cut into blocks of one expert each that fit a cache, and blocks dealt out to
// threads. Blocks do not depend on the number of threads, and neither does any result.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace tsattn {

constexpr int64_t kBlockSlots = 240; // whole tiles of narrow tokens
constexpr int64_t kBlockStep = 80; // so few sizes of bfloat16 products occur that oneDNN keeps them all
constexpr int64_t kSliceBlocks = 4; // blocks whose gradients of the weights are summed together, or more
constexpr int64_t kExpertSlices = 8; // an expert has no more slices than this

struct Block {
  int64_t expert, first, count; // slots `first` .. `first + count - 1` of the sorted ones
};

struct Slice {
  int64_t expert, first, last; // blocks
};

struct Blocks {
  std::vector<Block> blocks;
  std::vector<Slice> slices;

  Blocks(const int64_t* counts, int64_t experts) {
    int64_t slot = 0;
    for (int64_t e = 0; e < experts; slot += counts[e], ++e) {
      const int64_t here = (counts[e] + kBlockSlots - 1) / kBlockSlots;
      const int64_t step = std::max(kSliceBlocks, (here + kExpertSlices - 1) / kExpertSlices);
      const int64_t begin = static_cast<int64_t>(blocks.size());
      for (int64_t b = 0; b < here; ++b) {
        const int64_t at = b * kBlockSlots;
        blocks.push_back({e, slot + at, std::min(kBlockSlots, counts[e] - at)});
      }
      for (int64_t b = 0; b < here; b += step) {
        slices.push_back({e, begin + b, begin + std::min(here, b + step)});
      }
    }
  }
};

// Calls body(worker, i) for 0 .. count - 1, each once; a thread takes the next one when it is ready.
template <class MakeWorker, class Body>
void deal_out(int64_t count, MakeWorker&& make_worker, Body&& body) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), count);
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    // what threads compute through torch is not recorded, whatever the caller's state
    at::AutoDispatchBelowADInplaceOrView below;
    auto worker = make_worker();
    for (int64_t i = next++; i < count; i = next++) {
      body(worker, i);
    }
  });
}

} // namespace tsattn
