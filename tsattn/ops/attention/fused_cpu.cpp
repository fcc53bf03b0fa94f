// Active attention on CPUs, forward: heads and their tiles shared out among threads.

#include "forward_head.h"

#include <ATen/Parallel.h>

namespace tsattn {
namespace {

template <class T>
void forward(const ForwardProblem<T>& p) {
  const Tiles tiles(p.queries);
  const int64_t heads = p.batch * p.heads;
  // Few heads: their tiles are shared out as well. Every tile is computed alike in either case.
  const bool split = heads < 4 * at::get_num_threads() && tiles.count > 1;
  const int64_t parts = split ? tiles.count : 1;
  const int64_t work = p.queries * p.keys * (p.width + p.value_width + 16) / parts;
  at::parallel_for(
      0, heads * parts, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, work)),
      [&](int64_t begin, int64_t end) {
        ForwardHead<T, ForwardProducts<T>> head(p);
        int64_t current = -1;
        for (int64_t item = begin; item < end; ++item) {
          if (item / parts != current) {
            current = item / parts;
            head.start(current);
          }
          for (int64_t t = split ? item % parts : 0; t < (split ? item % parts + 1 : tiles.count);
               ++t) {
            with_vectors(tiles.size(t), [&]<int R>() {
              head.template tile<R>(t * tiles.step, tiles.size(t));
            });
          }
        }
      });
}

} // namespace

void attention_forward(const ForwardProblem<float>& problem) {
  forward(problem);
}

void attention_forward(const ForwardProblem<c10::BFloat16>& problem) {
  forward(problem);
}

} // namespace tsattn
