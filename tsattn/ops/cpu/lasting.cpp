#include "lasting.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/safe_numerics.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace tsattn {
namespace {

constexpr size_t kLarge = size_t{256} << 10;

// How much is kept: what TSATTN_KEEP_MIB says; else a GiB, and of a small machine a sixteenth of its
// memory.
size_t most_kept() {
  constexpr size_t kMiB = size_t{1} << 20, kMost = size_t{1} << 30;
  if (const char* chosen = std::getenv("TSATTN_KEEP_MIB"); chosen != nullptr && *chosen != '\0') {
    return static_cast<size_t>(std::max(0L, std::strtol(chosen, nullptr, 10))) * kMiB;
  }
#if defined(_SC_PHYS_PAGES)
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) {
    return std::min(kMost, static_cast<size_t>(pages) / 16 * static_cast<size_t>(page));
  }
#endif
  return kMost / 4;
}

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

  // A block of more than half of what may be kept would drive out most others.
  void give_back(const Block& block) noexcept {
    if (block.bytes > most_ / 2 || !keep(block)) {
      c10::free_cpu(block.data);
    }
    release(most_);
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

  bool keep(const Block& block) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    try {
      blocks_.push_back(block);
    } catch (const std::bad_alloc&) {
      return false;
    }
    total_ += block.bytes;
    return true;
  }

  // Frees the oldest blocks until at most `most` bytes are kept.
  void release(size_t most) noexcept {
    for (Block block = oldest(most); block.data != nullptr; block = oldest(most)) {
      c10::free_cpu(block.data);
    }
  }

  // Takes out the oldest block, or none where no more than `most` bytes are kept.
  Block oldest(size_t most) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (total_ <= most) {
      return {};
    }
    const Block block = blocks_.front();
    blocks_.pop_front();
    total_ -= block.bytes;
    return block;
  }

  const size_t most_ = most_kept();
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
  uint64_t bytes = 0;
  const bool is_size = std::all_of(sizes.begin(), sizes.end(), [](int64_t n) { return n >= 0; }) &&
      !c10::safe_multiplies_u64(sizes, &bytes) &&
      !c10::mul_overflows(bytes, uint64_t{options.dtype().itemsize()}, &bytes);
  if (!is_size || bytes < kLarge || must_be_filled()) {
    return at::empty(sizes, options);
  }
  auto block = std::make_unique<Block>(kept_blocks().take(bytes));
  void* data = block->data;
  const auto give_back = [](void* x) {
    const std::unique_ptr<Block> gone(static_cast<Block*>(x));
    kept_blocks().give_back(*gone);
  };
  return at::for_blob(data, sizes)
      .context(block.release(), give_back)
      .allocator(c10::GetCPUAllocator()) // where it is resized
      .resizeable_storage()
      .options(options)
      .make_tensor();
}

} // namespace tsattn
