#include "choose.h"

#include <algorithm>
#include <cfloat>
#include <functional>
#include <vector>

#include "simd.h"

namespace patterndsl {
namespace {

constexpr int64_t ROWS = 64;  // of a task
constexpr float MINUS_INFINITY = -__builtin_inff();

// As numbers that can be compared: NaN is the smallest, infinities are finite, and 0 has no sign.
inline Floats finite(Floats x) {
  x = larger(x, all(-FLT_MAX)) + 0.0f;  // the second, where one is NaN
  return x > FLT_MAX ? all(FLT_MAX) : x;
}

// What may be chosen as finite numbers, −inf elsewhere.
inline Floats choosable(const float* x, const uint8_t* allowed) {
  uint8_t every[WIDTH], none[WIDTH] = {};
  std::memset(every, 1, WIDTH);
  if (!std::memcmp(allowed, every, WIDTH)) return finite(load(x));
  if (!std::memcmp(allowed, none, WIDTH)) return all(MINUS_INFINITY);
  float found[WIDTH];
  const Floats y = finite(load(x));
  for (int i = 0; i < WIDTH; i++) found[i] = allowed[i] ? y[i] : MINUS_INFINITY;
  return load(found);
}

// A score and its column as an integer: that of a larger score is smaller, and of equal scores that of an earlier column.
inline uint64_t candidate(float score, uint32_t column) {
  const Ints word = bits(all(score));
  const uint32_t rising = word[0] < 0 ? ~uint32_t(word[0]) : uint32_t(word[0]) | 0x80000000u;
  return uint64_t(~rising) << 32 | column;
}

// The choice of one row at a time.
class Choice {
 public:
  Choice(int64_t columns, int count)
      : count_(count), steps_((columns + LANES - 1) / LANES), deep_(std::max<int64_t>(columns / (GROUPS * count), 1)),
        scores_(size_t(steps_) * LANES, MINUS_INFINITY), tops_(size_t((steps_ + deep_ - 1) / deep_) * LANES) {}

  // Places of the largest that are allowed, best first, then −1.
  void of(const float* x, const uint8_t* allowed, int64_t columns, int32_t* chosen) {
    read(x, allowed, columns);
    const float least = threshold();
    found_.clear();
    for (int64_t i = 0; i < steps_ * LANES; i += LANES) {
      int32_t reach[LANES];
      for (int j = 0; j < LANES; j += WIDTH) store(reach + j, Ints(load(scores_.data() + i + j) >= least));
      for (uint32_t left = word_of(reach); left; left &= left - 1) {
        const int64_t column = i + __builtin_ctz(left);
        found_.push_back(candidate(scores_[column], uint32_t(column)));
      }
    }
    const size_t size = std::min(found_.size(), size_t(count_));
    if (found_.size() > 4 * size)
      std::partial_sort(found_.begin(), found_.begin() + size, found_.end());
    else
      std::sort(found_.begin(), found_.end());  // sooner, where few are left over
    for (size_t i = 0; i < size_t(count_); i++) chosen[i] = i < size ? int32_t(found_[i]) : -1;
  }

 private:
  static constexpr int GROUPS = 2;  // for each of those chosen

  // The scores, and the largest of each group of them: a lane of `deep_` steps.
  void read(const float* x, const uint8_t* allowed, int64_t columns) {
    for (int64_t first = 0; first < steps_; first += deep_) {
      Floats top[WIDE];
      for (int j = 0; j < WIDE; j++) top[j] = all(MINUS_INFINITY);
      for (int64_t step = first; step < std::min(first + deep_, steps_); step++)
        for (int j = 0; j < WIDE; j++) {
          const int64_t at = step * LANES + j * WIDTH;
          float* to = scores_.data() + at;
          if (at + WIDTH <= columns)
            store(to, choosable(x + at, allowed + at));
          else
            for (int64_t i = at; i < columns; i++) scores_[i] = allowed[i] ? finite(all(x[i]))[0] : MINUS_INFINITY;
          top[j] = larger(load(to), top[j]);
        }
      for (int j = 0; j < WIDE; j++) store(tops_.data() + first / deep_ * LANES + j * WIDTH, top[j]);
    }
  }

  // As many scores as are wanted, each of another group, are as large as this: no smaller one is chosen.
  float threshold() {
    float least = -FLT_MAX;
    if (tops_.size() < size_t(count_)) return least;
    if (tops_.size() > 4 * LANES) {
      std::nth_element(tops_.begin(), tops_.begin() + count_ - 1, tops_.end(), std::greater<float>());
      return std::max(least, tops_[count_ - 1]);
    }
    Floats found = all(least);  // of few, it is sooner to count how many are as large as each
    for (size_t i = 0; i < tops_.size(); i += WIDTH) {
      const Floats top = load(tops_.data() + i);
      Ints as_large{};
      for (float other : tops_) as_large -= Ints(other >= top);
      found = larger(select(as_large >= count_, top, found), found);
    }
    for (int i = 0; i < WIDTH; i++) least = std::max(least, found[i]);
    return least;
  }

  const int count_;
  const int64_t steps_, deep_;
  std::vector<float> scores_, tops_;
  std::vector<uint64_t> found_;
};

}  // namespace

void largest(const Scores& s, int count, int32_t* chosen, Workers& workers) {
  const int64_t rows = s.batch * s.heads * s.rows;
  auto body = [&](int64_t task) {
    Choice choice(s.columns, count);
    for (int64_t row = task * ROWS; row < std::min(rows, (task + 1) * ROWS); row++) {
      const int64_t b = s.allowed_batch > 1 ? row / (s.heads * s.rows) : 0, r = s.allowed_rows > 1 ? row % s.rows : 0;
      const uint8_t* allowed = s.allowed + (b * s.allowed_rows + r) * s.columns;
      choice.of(s.values + row * s.columns, allowed, s.columns, chosen + row * count);
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
