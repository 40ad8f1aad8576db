// Register-blocked products. A panel is stored [rows][LANES]: row r of a matrix for LANES queries side by side.
#pragma once

#include "simd.h"

namespace patterndsl {

struct Run {  // of keys in a chunk
  int begin, end;
};

// scores[i][lane] = Σ_h keys[i][h] · queries[h][lane] for R keys; rows of `keys` are `stride` apart.
template <int R>
inline void dot_rows(const float* keys, int64_t stride, const float* queries, int size, float* scores) {
  Floats sum[R][WIDE] = {};
  for (int h = 0; h < size; h++) {
    Floats x[WIDE];
#pragma GCC unroll 4
    for (int j = 0; j < WIDE; j++) x[j] = load(queries + h * LANES + j * WIDTH);
#pragma GCC unroll 12
    for (int i = 0; i < R; i++) {
      Floats key = all(keys[i * stride + h]);
#pragma GCC unroll 4
      for (int j = 0; j < WIDE; j++) sum[i][j] += key * x[j];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < WIDE; j++) store(scores + i * LANES + j * WIDTH, sum[i][j]);
}

template <int R>
inline void dot_some_rows(int rows, const float* keys, int64_t stride, const float* queries, int size, float* scores) {
  if (rows == R)
    dot_rows<R>(keys, stride, queries, size, scores);
  else if constexpr (R > 1)
    dot_some_rows<R - 1>(rows, keys, stride, queries, size, scores);
}

// The scores of one group of up to RANK keys.
inline void dot(int rows, const float* keys, int64_t stride, const float* queries, int size, float* scores) {
  dot_some_rows<RANK>(rows, keys, stride, queries, size, scores);
}

// out[d][lane] += Σ_c values[c][d] · weights[c][lane] for R components d, over runs of keys c. `values` is a strip
// [c][RANK].
template <int R>
inline void gather_strip(const float* values, const float* weights, const Run* runs, int run_count, float* out) {
  Floats sum[R][WIDE];
#pragma GCC unroll 12
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < WIDE; j++) sum[i][j] = load(out + i * LANES + j * WIDTH);
  for (int r = 0; r < run_count; r++) {
    const float* value = values + runs[r].begin * RANK;
    const float* weight = weights + runs[r].begin * LANES;
    for (int c = runs[r].begin; c < runs[r].end; c++, value += RANK, weight += LANES) {
      Floats x[WIDE];
#pragma GCC unroll 4
      for (int j = 0; j < WIDE; j++) x[j] = load(weight + j * WIDTH);
#pragma GCC unroll 12
      for (int i = 0; i < R; i++) {
        Floats one = all(value[i]);
#pragma GCC unroll 4
        for (int j = 0; j < WIDE; j++) sum[i][j] += one * x[j];
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < WIDE; j++) store(out + i * LANES + j * WIDTH, sum[i][j]);
}

template <int R>
inline void gather_some(int rows, const float* values, const float* weights, const Run* runs, int count, float* out) {
  if (rows == R)
    gather_strip<R>(values, weights, runs, count, out);
  else if constexpr (R > 1)
    gather_some<R - 1>(rows, values, weights, runs, count, out);
}

// out[d][lane] += Σ_c values[c][d] · weights[c][lane] for all components d; strips are `stride` floats apart.
inline void gather(const float* strips, int64_t stride, int size, const float* weights, const Run* runs, int run_count,
                   float* out) {
  for (int d = 0; d < size; d += RANK)
    gather_some<RANK>(size - d < RANK ? size - d : RANK, strips + d / RANK * stride, weights, runs, run_count,
                      out + d * LANES);
}

// Of one panel: weights [key][LANES] of a group of keys, and rows [lane][…] that they weigh.
struct Weighted {
  const float *weights, *rows;
  int lanes;
};

// out[i][d] += Σ_lane weights[i][lane] · rows[lane][d] for R keys i, over the lanes of several panels, and components
// first … first + V · WIDTH − 1. The rows of `out` do not overlap.
template <int R, int V>
inline void scatter_block(const Weighted* panels, int count, int64_t stride, int first, float* const* out) {
  Floats sum[R][V];
#pragma GCC unroll 12
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < V; j++) sum[i][j] = load(out[i] + first + j * WIDTH);
  for (const Weighted* p = panels; p < panels + count; p++) {
    const float *weight = p->weights, *rows = p->rows + first;
    for (int q = 0; q < p->lanes; q++, weight++, rows += stride) {
      Floats x[V];
#pragma GCC unroll 4
      for (int j = 0; j < V; j++) x[j] = load(rows + j * WIDTH);
#pragma GCC unroll 12
      for (int i = 0; i < R; i++) {
        Floats one = all(weight[i * LANES]);
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) sum[i][j] += one * x[j];
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < V; j++) store(out[i] + first + j * WIDTH, sum[i][j]);
}

template <int R>
inline void scatter_some(int keys, const Weighted* panels, int count, int64_t stride, int size, float* const* out) {
  if (keys == R) {
    int d = 0;
    for (; d + LANES <= size; d += LANES) scatter_block<R, WIDE>(panels, count, stride, d, out);
    for (; d < size; d += WIDTH) scatter_block<R, 1>(panels, count, stride, d, out);
  } else if constexpr (R > 1) {
    scatter_some<R - 1>(keys, panels, count, stride, size, out);
  }
}

// The same for one group of up to RANK keys and `size` components, a multiple of WIDTH.
inline void scatter(int keys, const Weighted* panels, int count, int64_t stride, int size, float* const* out) {
  scatter_some<RANK>(keys, panels, count, stride, size, out);
}

}  // namespace patterndsl
