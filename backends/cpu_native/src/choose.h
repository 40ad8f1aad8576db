// What choices are made of: the largest of many scores.
#pragma once

#include "call.h"

namespace patterndsl {

// Scores [sequences, heads, rows, columns], with what may be chosen, bytes [sequences or 1, rows or 1, columns].
struct Scores {
  const float* values;
  const uint8_t* allowed;
  int64_t batch, heads, rows, columns, allowed_batch, allowed_rows;
};

// Of each row the `count` largest scores, best first and of equal ones the first first, by their columns; −1 where
// there are no more. NaN is the smallest number, and what is infinite the largest or smallest that is finite.
void largest(const Scores& scores, int count, int32_t* chosen, Workers& workers);

// Of each of `rows` rows x the place of the largest number of [x, −x], the first of equal ones; NaN is none.
void largest_of_both_signs(const float* x, int64_t rows, int64_t columns, int32_t* places, Workers& workers);

}  // namespace patterndsl
