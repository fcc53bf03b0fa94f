// An encoder of post-norm layers with fixed normalisations, in evaluation: a group of sequences passes
// all layers while it lies in cache.
#pragma once

#include "../attention/fused_cpu.h"

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <vector>

namespace tsattn {

// Weights [features, width] of T as they lie, and what is added and multiplied in float.
template <class T>
struct LayerWeights {
  const T *qkv, *out, *expand, *contract;
  const float *qkv_bias, *out_bias, *expand_bias, *contract_bias;
  // (x + branch) scale + shift after either branch
  const float *attention_scale, *attention_shift, *feedforward_scale, *feedforward_shift;
};

template <class T>
struct Encoder {
  int64_t sequences, length, width, hidden, heads;
  Activation activation;
  bool residual_scores; // layers add the scores of all before
  std::vector<LayerWeights<T>> layers;
  const float* x; // [sequences, length, width]
  float* y;
};

// Whether this machine computes it: registers, for bfloat16 the instruction and no matrix units.
template <class T>
bool encoder_fits(int64_t width, int64_t hidden);

// Floats of scratch memory for the packed weights.
int64_t encoder_scratch(int64_t layers, int64_t width, int64_t hidden);

template <class T>
void encode(const Encoder<T>& p, float* scratch);

} // namespace tsattn
