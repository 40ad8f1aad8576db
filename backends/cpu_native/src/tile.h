// A tile of queries and what it reads: chunks of slots, with the mask of each (query, slot) pair.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "blocks.h"
#include "call.h"
#include "groups.h"
#include "predicate.h"

namespace patterndsl {

enum Kept : uint8_t { NONE, EVERY, SOME };

struct Span {  // consecutive slots of a chunk that come from one source
  int source, begin, end;
  bool partial;
};

// Up to `limit` slots, in groups of RANK.
struct Chunk {
  int size = 0, panels = 0;
  bool added = false, counted = false;
  std::vector<Span> spans;
  std::vector<int32_t> slots;
  std::vector<int32_t> twice_position;  // of a slot's tokens, in the mean
  std::vector<float> log_size;          // log2 of the tokens that a slot counts for
  std::vector<uint32_t> words;          // [slot][panel]: the queries that keep it
  std::vector<Kept> kept;               // [panel][group]
  std::vector<float> log_count;         // [slot][panel][lane], where counts exceed one

  int groups() const { return (size + RANK - 1) / RANK; }
  int group_size(int g) const { return std::min(RANK, size - g * RANK); }
  Kept of(int panel, int g) const { return kept[size_t(panel) * groups() + g]; }
};

inline int32_t tiles_of(const Call& call, const Part& part) {
  const int64_t places = part.queries ? part.query_places : call.queries;
  return int32_t((places + part.block_q - 1) / part.block_q);
}

class Tile {
 public:
  // The real queries of a row of the part's table.
  void begin(const Call& call, const Part& part, int row, int64_t batch) {
    call_ = &call, part_ = &part, batch_ = batch, head_ = 0, lane_ = nullptr;
    const int32_t* data = call.schedule.data;
    const int32_t tile = data[part.tiles + row], *order = part.queries ? data + part.queries : nullptr;
    queries.clear();
    int64_t end = std::min<int64_t>(int64_t(tile + 1) * part.block_q, order ? part.query_places : call.queries);
    for (int64_t place = int64_t(tile) * part.block_q; place < end; place++) {
      int32_t query = order ? order[place] : int32_t(place);
      if (query >= 0) queries.push_back(query);
    }
    begin_queries();
    run_ = row ? data[part.ends + row - 1] : 0, run_end_ = data[part.ends + row], in_run_ = 0;
    total_ = 0;
    for (int r = run_; r < run_end_; r++) total_ += run(r)[2];
  }

  // Queries `first` … `last` − 1 of those of a group, with its keys.
  void begin_group(const Call& call, const Part& part, int64_t batch, int64_t head, const Lane& lane, int group,
                   int32_t first, int32_t last) {
    call_ = &call, part_ = &part, batch_ = batch, head_ = head, lane_ = &lane, group_ = group;
    queries.assign(lane.queries.begin() + first, lane.queries.begin() + last);
    begin_queries();
    const Groups& groups = call.schedule.groups(part);
    const int32_t latest = positions[queries.size() - 1];  // queries of a group rise
    key_ = lane.first_key(groups, group), key_end_ = lane.last_key(groups, group, call.schedule.n());
    if (groups.before && lane.keys.empty()) key_end_ = std::clamp(latest + 1, key_, key_end_);
    if (groups.before && !lane.keys.empty()) {
      const int32_t* keys = lane.keys.data();
      key_end_ = int32_t(std::upper_bound(keys + key_, keys + key_end_, latest) - keys);
    }
    total_ = key_end_ - key_;
  }

  // Slots in a chunk, where a row is cut evenly into chunks of at most `most`.
  int even(int most) const {
    int64_t chunks = std::max<int64_t>(1, (total_ + most - 1) / most);
    return int((total_ + chunks - 1) / chunks + RANK - 1) / RANK * RANK;
  }

  // The next slots, at most `limit`; false where none are left.
  bool next(Chunk& c, int limit) {
    c.size = 0, c.panels = panels, c.added = c.counted = false;
    c.spans.clear(), c.slots.clear(), c.twice_position.clear(), c.log_size.clear();
    if (lane_) read_group(c, limit);
    while (!lane_ && run_ < run_end_ && c.size < limit) {
      const int32_t* r = run(run_);
      read(c, r[0] >> 1, r[0] & 1, r[1] + in_run_, std::min(r[2] - in_run_, limit - c.size), r[2]);
    }
    if (c.size) mark(c);
    return c.size > 0;
  }

  uint32_t real(int panel) const {
    int lanes = std::min(LANES, int(queries.size()) - panel * LANES);
    return lanes == 32 ? ~0u : (1u << lanes) - 1;
  }
  int lanes(int panel) const { return std::min(LANES, int(queries.size()) - panel * LANES); }

  std::vector<int32_t> queries, positions;  // of the real queries; positions filled up to whole panels
  int panels = 0;

 private:
  void begin_queries() {
    panels = (int(queries.size()) + LANES - 1) / LANES;
    positions.resize(size_t(panels) * LANES);
    for (int i = 0; i < panels * LANES; i++)
      positions[i] = call_->offset + queries[std::min<size_t>(i, queries.size() - 1)];
    if (predicates_.size() < size_t(part_->source_count)) predicates_.resize(part_->source_count);
    begun_.assign(part_->source_count, false);
  }

  void read_group(Chunk& c, int limit) {
    const int32_t n = call_->lengths ? std::min(call_->lengths[batch_], call_->schedule.n()) : call_->schedule.n();
    for (; key_ < key_end_ && c.size < limit; key_++) {
      const int32_t slot = lane_->keys.empty() ? key_ : lane_->keys[key_];
      if (slot >= n) continue;
      c.slots.push_back(slot);
      c.twice_position.push_back(2 * slot);
      c.log_size.push_back(0.0f);
      c.size++;
    }
    if (c.size) c.spans.push_back({0, 0, c.size, call_->schedule.groups(*part_).masked != 0});
  }

  // A pair that an earlier group has is dropped.
  void drop_earlier(Chunk& c) {
    const int words = lane_->words, last = group_ / 32;
    const uint32_t before = (1u << group_ % 32) - 1;
    auto earlier = [&](const uint32_t* bits, int w) { return bits[w] & (w == last ? before : ~0u); };
    some_.clear();
    for (int j = 0; j < int(queries.size()); j++)
      for (int w = 0; w <= last; w++)
        if (earlier(lane_->of_queries.data() + size_t(queries[j]) * words, w)) {
          some_.push_back(j);
          break;
        }
    if (some_.empty()) return;
    for (int i = 0; i < c.size; i++) {
      const uint32_t* theirs = lane_->of_keys.data() + size_t(c.slots[i]) * words;
      for (int w = 0; w <= last; w++) {
        const uint32_t key = earlier(theirs, w);
        if (!key) continue;
        for (int j : some_)
          if (key & lane_->of_queries[size_t(queries[j]) * words + w])
            c.words[size_t(i) * panels + j / LANES] &= ~(1u << j % LANES);
      }
    }
  }

  const int32_t* run(int r) const { return call_->schedule.data + part_->runs + 3 * int64_t(r); }
  const Source& source(int i) const { return call_->schedule.source(*part_, i); }

  void read(Chunk& c, int which, bool partial, int32_t first, int count, int length) {
    const Source& s = source(which);
    const int32_t* order = s.tokens && part_->tokens ? call_->schedule.data + part_->tokens : nullptr;
    const int64_t n = call_->lengths ? std::min(call_->lengths[batch_], call_->schedule.n()) : call_->schedule.n();
    int begin = c.size;
    for (int32_t place = first; place < first + count && place < s.slots; place++) {
      int32_t slot = order ? order[place] : place;
      if (slot < 0) continue;
      int64_t tokens = std::clamp<int64_t>(n - int64_t(slot) * s.stride, 0, s.size);
      if (tokens == 0) continue;  // a key beyond the sequence's length
      c.slots.push_back(slot);
      c.twice_position.push_back(int32_t(2 * int64_t(slot) * s.stride + tokens - 1));
      c.log_size.push_back(s.counted ? std::log2(float(tokens)) : 0.0f);
      c.size++;
    }
    c.added |= s.counted;
    if (c.size > begin) {
      if (!c.spans.empty() && c.spans.back().source == which && c.spans.back().partial == partial)
        c.spans.back().end = c.size;
      else
        c.spans.push_back({which, begin, c.size, partial});
    }
    in_run_ += count;
    if (in_run_ >= length) run_++, in_run_ = 0;
  }

  void mark(Chunk& c) {
    c.words.resize(size_t(c.size) * panels);
    for (const Span& span : c.spans) span.partial ? evaluate(c, span) : fill(c, span);
    if (lane_ && lane_->words) drop_earlier(c);
    int groups = c.groups();
    c.kept.resize(size_t(panels) * groups);
    for (int g = 0; g < groups; g++)
      for (int p = 0; p < panels; p++) {
        uint32_t some = 0, every = ~0u;
        for (int i = g * RANK; i < g * RANK + c.group_size(g); i++) {
          some |= c.words[size_t(i) * panels + p];
          every &= c.words[size_t(i) * panels + p];
        }
        c.kept[size_t(p) * groups + g] = some == 0 ? NONE : every == real(p) ? EVERY : SOME;
      }
  }

  void fill(Chunk& c, const Span& span) {
    for (int i = span.begin; i < span.end; i++)
      for (int p = 0; p < panels; p++) c.words[size_t(i) * panels + p] = real(p);
    if (c.counted) std::fill(c.log_count.begin() + width() * span.begin, c.log_count.begin() + width() * span.end, 0.f);
  }

  size_t width() const { return size_t(panels) * LANES; }

  void evaluate(Chunk& c, const Span& span) {
    Predicate& predicate = predicates_[span.source];
    if (!begun_[span.source])
      predicate.begin(*call_, call_->schedule.data + source(span.source).term, batch_, head_,
                      positions.data(), int(positions.size()));
    begun_[span.source] = true;
    if (predicate.counts() && !c.counted) {
      c.counted = true;
      c.log_count.assign(width() * c.size, 0.0f);
    }
    predicate.keys(c.slots.data() + span.begin, span.end - span.begin);
    for (int i = span.begin; i < span.end; i++) {
      uint32_t* words = c.words.data() + size_t(i) * panels;
      if (!predicate.at(i - span.begin)) {
        std::copy(words - panels, words, words);
        if (predicate.counts())
          std::copy_n(c.log_count.data() + width() * (i - 1), width(), c.log_count.data() + width() * i);
        continue;
      }
      Operand keep = predicate.keep();
      for (int p = 0; p < panels; p++)
        words[p] = real(p) & (keep.step ? word_of(keep.p + p * LANES) : *keep.p ? ~0u : 0u);
      if (predicate.counts())
        for (size_t j = 0; j < width(); j++)
          c.log_count[width() * i + j] = std::log2(float(std::max(predicate.count()[int(j)], 1)));
    }
  }

  const Call* call_ = nullptr;
  const Part* part_ = nullptr;
  int64_t batch_ = 0, total_ = 0;
  int run_ = 0, run_end_ = 0, in_run_ = 0;
  const Lane* lane_ = nullptr;  // of a grouped part, with what follows
  int64_t head_ = 0;
  int group_ = 0;
  int32_t key_ = 0, key_end_ = 0;
  std::vector<int> some_;
  std::vector<Predicate> predicates_;
  std::vector<bool> begun_;
};

}  // namespace patterndsl
