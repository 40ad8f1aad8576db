// Vectors of floats and integers in GCC's and Clang's vector extensions: one source for every instruction set.
//
// A panel is LANES queries side by side, the lanes of WIDE vectors. Register blocks are RANK × panel: RANK keys
// (or components of a head) are broadcast against it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace patterndsl {

#if defined(PATTERNDSL_WIDTH)
constexpr int WIDTH = PATTERNDSL_WIDTH;  // floats in a vector, where a test wants another than the machine's
#elif defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

#if defined(__AVX512F__)
constexpr int RANK = 12, WIDE = 2;  // 24 of 32 registers accumulate
#elif defined(__aarch64__)
constexpr int RANK = 6, WIDE = 4;
#else
constexpr int RANK = 6, WIDE = 2;  // 12 of 16 registers
#endif
constexpr int LANES = WIDTH * WIDE;
static_assert(LANES <= 32, "a panel's mask is one 32-bit word");

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));

inline Floats load(const float* p) {
  Floats x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline Ints load(const int32_t* p) {
  Ints x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline void store(float* p, Floats x) { std::memcpy(p, &x, sizeof x); }
inline void store(int32_t* p, Ints x) { std::memcpy(p, &x, sizeof x); }
inline Floats all(float x) { return x - Floats{}; }
inline Ints all(int32_t x) { return x + Ints{}; }

inline Ints bits(Floats x) {
  Ints y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline Floats number(Ints x) {
  Floats y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline Floats select(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }

inline Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__) && !defined(PATTERNDSL_WIDTH)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__) && !defined(PATTERNDSL_WIDTH)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// 2 to the power x, relative error below 2.5e-7 for x ≤ 126; 0 below −126. NaN stays NaN.
inline Floats exp2(Floats x) {
  const float round = 12582912.0f;  // 1.5·2^23: adding it leaves the integer in the low bits
  Floats y = larger(all(-126.0f), x);
  Floats whole = y + round;
  Floats r = y - (whole - round);
  Floats p = 1.32647269e-03f * r + 9.67151266e-03f;
  p = p * r + 5.55073374e-02f;
  p = p * r + 2.40222421e-01f;
  p = p * r + 6.93146978e-01f;
  p = p * r + 1.0f;
  Floats scaled = number(bits(p) + (bits(whole) << 23));
  return number(bits(scaled) & ~(x < -126.0f));
}

// tanh(y) = 1 − 2 / (e^2y + 1).
inline Floats tanh_of(Floats y) {
  const float twice_log2e = 2.8853900817779268f;
  Floats e = twice_log2e * y;
  e = e > 60.0f ? all(60.0f) : e;
  return 1.0f - 2.0f / (exp2(e) + 1.0f);
}

// All ones in the lanes whose bit is set, from bit `first` of the word on.
inline Ints lanes_of(uint32_t word, int first) {
  Ints one;
  for (int i = 0; i < WIDTH; i++) one[i] = int32_t(1u << i);
  return (all(int32_t(word >> first)) & one) != 0;
}

// The word whose bits say which of LANES truth values (0 or −1) hold.
inline uint32_t word_of(const int32_t* truth) {
#if defined(__AVX2__)
  uint32_t word = 0;
  for (int i = 0; i < LANES; i += 8) {
    __m256 x = _mm256_loadu_ps(reinterpret_cast<const float*>(truth + i));
    word |= uint32_t(_mm256_movemask_ps(x)) << i;
  }
  return word;
#else
  uint32_t word = 0;
  for (int i = 0; i < LANES; i++) word |= uint32_t(truth[i] & 1) << i;
  return word;
#endif
}

inline float from_bfloat16(uint16_t x) {
  uint32_t wide = uint32_t(x) << 16;
  float y;
  std::memcpy(&y, &wide, sizeof y);
  return y;
}

#if defined(__AVX2__)
inline void transpose_8x8(const float* x, int64_t ldx, float* y, int64_t ldy) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(x + i * ldx);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps(y + i * ldy, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(y + (i + 4) * ldy, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
#endif

// y[j][i] = x[i][j] for i < rows, j < columns.
inline void transpose(const float* x, int64_t ldx, int rows, int columns, float* y, int64_t ldy) {
  int whole_rows = 0, whole_columns = 0;
#if defined(__AVX2__)
  whole_rows = rows & ~7, whole_columns = columns & ~7;
  for (int i = 0; i < whole_rows; i += 8)
    for (int j = 0; j < whole_columns; j += 8) transpose_8x8(x + i * ldx + j, ldx, y + j * ldy + i, ldy);
#endif
  for (int i = 0; i < rows; i++)
    for (int j = i < whole_rows ? whole_columns : 0; j < columns; j++) y[j * ldy + i] = x[i * ldx + j];
}

}  // namespace patterndsl
