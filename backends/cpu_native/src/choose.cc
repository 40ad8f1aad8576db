#include "choose.h"

#include <cfloat>

#include "simd.h"

namespace patterndsl {
namespace {

constexpr int64_t ROWS = 64;  // of a task

inline Floats finite(Floats x) {
  x = x == x ? x : all(-FLT_MAX);
  x = x > FLT_MAX ? all(FLT_MAX) : x;
  return x < -FLT_MAX ? all(-FLT_MAX) : x;
}

inline float finite(float x) { return x == x ? std::clamp(x, -FLT_MAX, FLT_MAX) : -FLT_MAX; }

// The best so far, in order.
struct Best {
  float* scores;
  int32_t* columns;
  int count, found = 0;
  float least = -__builtin_inff();  // what the next one has to exceed

  void add(float score, int32_t column) {
    int at = found < count ? found++ : count - 1;
    for (; at > 0 && scores[at - 1] < score; at--) scores[at] = scores[at - 1], columns[at] = columns[at - 1];
    scores[at] = score, columns[at] = column;
    if (found == count) least = scores[count - 1];
  }
};

// What may be chosen as finite numbers, −inf elsewhere.
inline Floats choosable(const float* x, const uint8_t* allowed) {
  uint8_t every[WIDTH], none[WIDTH] = {};
  std::memset(every, 1, WIDTH);
  if (!std::memcmp(allowed, every, WIDTH)) return finite(load(x));
  if (!std::memcmp(allowed, none, WIDTH)) return all(-__builtin_inff());
  Floats found;
  for (int i = 0; i < WIDTH; i++) found[i] = allowed[i] ? finite(x[i]) : -__builtin_inff();
  return found;
}

// As many numbers as a panel has lanes, each of one of them, are as large as the largest of each lane: with the
// `count`-th of these begins what is looked at one by one.
float threshold(const float* x, const uint8_t* allowed, int64_t columns, int count) {
  float tops[LANES];
  std::fill(tops, tops + LANES, -__builtin_inff());
  if (count > LANES) return tops[0];
  Floats top[WIDE];
  for (int j = 0; j < WIDE; j++) top[j] = load(tops);
  for (int64_t i = 0; i + LANES <= columns; i += LANES)
    for (int j = 0; j < WIDE; j++)
      top[j] = larger(choosable(x + i + j * WIDTH, allowed + i + j * WIDTH), top[j]);
  for (int j = 0; j < WIDE; j++) store(tops + j * WIDTH, top[j]);
  Floats found = all(-__builtin_inff());
  for (int j = 0; j < WIDE; j++) {
    Ints as_large{};
    for (int i = 0; i < LANES; i++) as_large -= Ints(tops[i] >= top[j]);
    found = larger(select(as_large >= count, top[j], found), found);
  }
  float best = found[0];
  for (int i = 1; i < WIDTH; i++) best = std::max(best, found[i]);
  return best;
}

void largest_of_row(const float* x, const uint8_t* allowed, int64_t columns, Best& best) {
  const float least = threshold(x, allowed, columns, best.count);
  int64_t i = 0;
  for (; i + LANES <= columns; i += LANES) {
    int32_t reach[LANES];
    const float bound = std::max(least, best.least);
    for (int j = 0; j < LANES; j += WIDTH)
      store(reach + j, Ints(choosable(x + i + j, allowed + i + j) >= bound));
    for (uint32_t left = word_of(reach); left; left &= left - 1) {
      const int64_t column = i + __builtin_ctz(left);
      const float score = finite(x[column]);
      if (allowed[column] && score > best.least) best.add(score, int32_t(column));
    }
  }
  for (; i < columns; i++)
    if (allowed[i] && finite(x[i]) > best.least) best.add(finite(x[i]), int32_t(i));
}

}  // namespace

void largest(const Scores& s, int count, int32_t* chosen, Workers& workers) {
  const int64_t rows = s.batch * s.heads * s.rows;
  auto body = [&](int64_t task) {
    std::vector<float> best(count);
    for (int64_t row = task * ROWS; row < std::min(rows, (task + 1) * ROWS); row++) {
      const int64_t b = s.allowed_batch > 1 ? row / (s.heads * s.rows) : 0, r = s.allowed_rows > 1 ? row % s.rows : 0;
      Best of_row{best.data(), chosen + row * count, count};
      largest_of_row(s.values + row * s.columns, s.allowed + (b * s.allowed_rows + r) * s.columns, s.columns, of_row);
      std::fill(chosen + row * count + of_row.found, chosen + (row + 1) * count, -1);
    }
  };
  workers.each((rows + ROWS - 1) / ROWS, body);
}

void largest_of_both_signs(const float* x, int64_t rows, int64_t columns, int32_t* places, Workers& workers) {
  auto body = [&](int64_t task) {
    for (int64_t row = task * ROWS; row < std::min(rows, (task + 1) * ROWS); row++) {
      const float* own = x + row * columns;
      Floats tops = all(-1.0f);
      int64_t i = 0;
      for (; i + WIDTH <= columns; i += WIDTH) {
        const Floats y = load(own + i), size = y < 0.0f ? -y : y;
        tops = size > tops ? size : tops;
      }
      float top = -1.0f;
      for (int j = 0; j < WIDTH; j++) top = std::max(top, tops[j]);
      for (; i < columns; i++)
        if (std::fabs(own[i]) > top) top = std::fabs(own[i]);
      int64_t place = 0, negative = 2 * columns;
      for (; place < columns && !(own[place] == top); place++)
        if (negative > columns + place && own[place] == -top) negative = columns + place;
      places[row] = int32_t(top < 0 ? 0 : place < columns ? place : negative);
    }
  };
  workers.each((rows + ROWS - 1) / ROWS, body);
}

}  // namespace patterndsl
