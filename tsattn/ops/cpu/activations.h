// The six value activations and their derivatives.
#pragma once

#include "simd.h"

namespace tsattn {

// The order of VALUE_ACTIVATIONS in tsattn/ops/activations.py.
enum class Activation : int64_t { kIdentity, kRelu, kGelu, kSilu, kTanh, kSigmoid };

inline namespace CPU_CAPABILITY {

TSATTN_INLINE Vec sigmoid(const Vec& x) {
  // the clamp keeps exp away from infinity; maximum and minimum let NaN through
  const Vec e = exp(at::vec::minimum(x.neg(), Vec(88.0f)));
  return Vec(1.0f) / (Vec(1.0f) + e);
}

// The lower tail Phi(-|x|) of the normal distribution, and exp(-x^2 / 2).
// Abramowitz and Stegun 7.1.26, absolute error 7.5e-8: what torch's own erf uses.
struct NormalTail {
  Vec tail;
  Vec bell;
};

TSATTN_INLINE NormalTail normal_tail(const Vec& x) {
  using at::vec::fmadd;
  const Vec bell = exp(x * x * Vec(-0.5f));
  const Vec t = reciprocal(fmadd(x.abs(), Vec(0.3275911f * 0.70710678f), Vec(1.0f)));
  Vec y = fmadd(t, Vec(0.5f * 1.061405429f), Vec(0.5f * -1.453152027f));
  y = fmadd(y, t, Vec(0.5f * 1.421413741f));
  y = fmadd(y, t, Vec(0.5f * -0.284496736f));
  y = fmadd(y, t, Vec(0.5f * 0.254829592f));
  return {y * t * bell, bell};
}

struct ValueAndSlope {
  Vec value;
  Vec slope;
};

// Both at the price of one.
TSATTN_INLINE ValueAndSlope gelu_pair(const Vec& x) {
  // x Phi(x) = max(x, 0) - |x| Phi(-|x|), and Phi(x) + x phi(x)
  const NormalTail n = normal_tail(x);
  const Vec below = Vec::blendv(Vec(1.0f) - n.tail, n.tail, x < Vec(0.0f));
  return {
      at::vec::maximum(x, Vec(0.0f)) - x.abs() * n.tail,
      at::vec::fmadd(x * Vec(0.398942280f), n.bell, below)};
}

TSATTN_INLINE Vec gelu(const Vec& x) {
  return gelu_pair(x).value;
}

TSATTN_INLINE Vec gelu_slope(const Vec& x) {
  return gelu_pair(x).slope;
}

TSATTN_INLINE Vec tanh(const Vec& x) {
  using at::vec::fmadd;
  // an odd polynomial below .625 (Cephes), 1 - 2 / (e^2|x| + 1) with the sign of x above
  const Vec z = x * x;
  Vec y = fmadd(z, Vec(-5.70498872745e-3f), Vec(2.06390887954e-2f));
  y = fmadd(y, z, Vec(-5.37397155531e-2f));
  y = fmadd(y, z, Vec(1.33314422036e-1f));
  y = fmadd(y, z, Vec(-3.33332819422e-1f));
  const Vec small = fmadd(y * z, x, x);
  const Vec size = x.abs();
  const Vec e = exp(at::vec::minimum(size + size, Vec(40.0f)));
  const Vec large = Vec(1.0f) - Vec(2.0f) / (e + Vec(1.0f));
  const Vec sign = x & Vec(-0.0f);
  return Vec::blendv(large | sign, small, size < Vec(0.625f));
}

// What is not used of it costs nothing.
template <Activation A>
TSATTN_INLINE ValueAndSlope value_and_slope(const Vec& x) {
  const Vec one(1.0f);
  if constexpr (A == Activation::kRelu) {
    return {at::vec::maximum(x, Vec(0.0f)), one & (x > Vec(0.0f))};
  } else if constexpr (A == Activation::kGelu) {
    return gelu_pair(x);
  } else if constexpr (A == Activation::kSilu) {
    const Vec s = sigmoid(x);
    return {x * s, s * at::vec::fmadd(x, one - s, one)};
  } else if constexpr (A == Activation::kTanh) {
    const Vec t = tanh(x);
    return {t, one - t * t};
  } else if constexpr (A == Activation::kSigmoid) {
    const Vec s = sigmoid(x);
    return {s, s * (one - s)};
  } else {
    return {x, one};
  }
}

template <class Body>
inline void with_activation(Activation activation, Body&& body) {
  using enum Activation;
  switch (activation) {
    case kIdentity:
      return body.template operator()<kIdentity>();
    case kRelu:
      return body.template operator()<kRelu>();
    case kGelu:
      return body.template operator()<kGelu>();
    case kSilu:
      return body.template operator()<kSilu>();
    case kTanh:
      return body.template operator()<kTanh>();
    case kSigmoid:
      return body.template operator()<kSigmoid>();
  }
}

// Arrays with room for whole vectors; what lies behind n is computed as well.
inline void activate(Activation activation, const float* src, float* dst, int64_t n) {
  with_activation(activation, [&]<Activation A>() {
    for (int64_t i = 0; i < n; i += kLanes) {
      value_and_slope<A>(Vec::loadu(src + i)).value.store(dst + i);
    }
  });
}

// The same, and the derivatives.
inline void activate_and_differentiate(
    Activation activation, const float* src, float* dst, float* slopes, int64_t n) {
  with_activation(activation, [&]<Activation A>() {
    for (int64_t i = 0; i < n; i += kLanes) {
      const ValueAndSlope both = value_and_slope<A>(Vec::loadu(src + i));
      both.value.store(dst + i);
      both.slope.store(slopes + i);
    }
  });
}

} // namespace CPU_CAPABILITY
} // namespace tsattn
