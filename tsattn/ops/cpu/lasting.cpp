#include "lasting.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/impl/alloc_cpu.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <mutex>
#include <numeric>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace tsattn {
namespace {

constexpr size_t kLarge = size_t{256} << 10;
constexpr size_t kMost = size_t{256} << 20;

struct Block {
  void* data = nullptr;
  size_t bytes = 0;
};

// Large pages take less time to get, and are found faster when they are read. It is a wish, and the
// same memory without them.
void prefer_large_pages(const Block& block) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr size_t kLeast = size_t{4} << 20; // two of them
  if (block.bytes < kLeast) {
    return;
  }
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(block.data);
  const uintptr_t begin = (first + page - 1) / page * page;
  const uintptr_t end = (first + block.bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Blocks that nobody uses, the one given back last behind the others.
class KeptBlocks {
 public:
  Block take(size_t bytes) {
    Block block = find(bytes);
    if (block.data == nullptr) {
      block = {fresh(bytes), bytes};
      prefer_large_pages(block);
    }
    return block;
  }

  void give_back(const Block& block) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      blocks_.push_back(block);
      total_ += block.bytes;
    }
    release(kMost);
  }

 private:
  // The latest block of that size, or of up to an eighth more.
  Block find(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto at = std::find_if(blocks_.rbegin(), blocks_.rend(), [&](const Block& block) {
      return block.bytes >= bytes && block.bytes - bytes <= bytes / 8;
    });
    if (at == blocks_.rend()) {
      return {};
    }
    const Block block = *at;
    blocks_.erase(std::next(at).base());
    total_ -= block.bytes;
    return block;
  }

  void* fresh(size_t bytes) {
    try {
      return c10::alloc_cpu(bytes);
    } catch (const c10::Error&) { // what is kept may be what is missing
      release(0);
      return c10::alloc_cpu(bytes);
    }
  }

  // Frees the oldest blocks until at most `most` bytes are kept.
  void release(size_t most) {
    std::vector<void*> gone;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (total_ > most) {
        gone.push_back(blocks_.front().data);
        total_ -= blocks_.front().bytes;
        blocks_.pop_front();
      }
    }
    std::for_each(gone.begin(), gone.end(), c10::free_cpu);
  }

  std::mutex mutex_;
  std::deque<Block> blocks_;
  size_t total_ = 0;
};

// Never destroyed: tensors may outlive whatever ends at exit.
KeptBlocks& kept_blocks() {
  static auto* const blocks = new KeptBlocks;
  return *blocks;
}

// Torch then fills what is uninitialised with NaN, so that nobody computes with it.
bool must_be_filled() {
  return at::globalContext().deterministicAlgorithms() &&
      at::globalContext().deterministicFillUninitializedMemory();
}

} // namespace

at::Tensor empty_lasting(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const auto count =
      std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<int64_t>());
  const size_t bytes = static_cast<size_t>(count) * options.dtype().itemsize();
  if (bytes < kLarge || must_be_filled()) {
    return at::empty(sizes, options);
  }
  const Block block = kept_blocks().take(bytes);
  return at::from_blob(
      block.data, sizes, [block](void*) { kept_blocks().give_back(block); }, options);
}

} // namespace tsattn
