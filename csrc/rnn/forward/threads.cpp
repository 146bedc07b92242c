// The work of a forward call as phases that its threads share.
#include "rnn/forward/pass.h"

namespace quadgate {

template <class Real>
typename ForwardPass<Real>::Place ForwardPass<Real>::place_of(const Team& all, size_t part) const {
  Place at = {0, order_.batch(), thread_scratch_ + all.rank, team_scratch_ + all.rank / plan_.units};
  const size_t parts = plan_.row_parts();
  if (parts == 1) return at;  // the divisions would show in a small call
  at.row0 = order_.part_begin(part, parts);
  at.row1 = order_.part_begin(part + 1, parts);
  return at;
}

template <class Real>
void ForwardPass<Real>::thread(size_t rank) {
  Progress progress;
  Team all;
  all.rank = progress.rank = rank;
  all.size = threads_;
  all.sharing = sharing_.get();
  all.progress = &progress;
  all.control = &control_;
  all.caller = rank == 0;
  if (!keep_inputs(all)) return;
  if (plan_.units > 1)
    units(all);
  else if (s_.directions == 2)
    two_directions(all);
  else if (plan_.layers > 1)
    pipeline(all);
  else
    one_direction(all);
}

// The tape's x. Threads with rows of their own copy these as they read them; not the padding behind short rows, and not
// rows that several threads share.
template <class Real>
bool ForwardPass<Real>::keep_inputs(const Team& all) {
  if (!call_.tape || layers_keep_x_) return true;
  return all.ranges(call_.steps * call_.batch, [&](size_t begin, size_t end) {
    for (size_t i = begin, n; i < end; i += n) {
      const size_t t = i / call_.batch, b = i % call_.batch;
      n = std::min(end - i, call_.batch - b);
      call_.tape->keep_x(t, b, n, call_.x.at(t, b), call_.x.row);
    }
  });
}

// Parts of the rows. A chunk of steps goes through all layers before the next, so that their outputs stay in cache and
// do not grow with T.
template <class Real>
void ForwardPass<Real>::one_direction(const Team& all) {
  const size_t steps = order_.steps(), L = s_.layers, chunks = ceil_div(steps, chunk_), links = ceil_div(chunk_, link_);
  const Team alone = all.alone();
  all.chains(plan_.row_parts(), chunks * L * links, [&](size_t part, size_t begin, size_t end) {
    const Place at = place_of(all, part);
    for (size_t next = 0; begin < end; begin = next) {
      // As many links of the same chunk and layer as there are.
      next = std::min(end, (begin / links + 1) * links);
      const size_t i = begin / links / L, l = begin / links % L, first = i * chunk_ + begin % links * link_;
      const size_t chunk_end = std::min(steps, (i + 1) * chunk_);
      const Chunk chunk = {first, std::min(chunk_end, first + (next - begin) * link_), i * chunk_, i % 2};
      if (chunk.s0 < chunk.s1 && !layer_and_join(alone, at, l, chunk)) return false;
    }
    return true;
  });
}

// Parts of the rows and of the layers: part j of the layers works one chunk behind part j - 1.
template <class Real>
void ForwardPass<Real>::pipeline(const Team& all) {
  const size_t steps = order_.steps(), L = s_.layers, chunks = ceil_div(steps, chunk_), n = plan_.layers;
  const Team alone = all.alone();
  for (size_t phase = 0; phase < chunks + n - 1; ++phase) {
    const bool go = all.chains(plan_.rows * n, 1, [&](size_t chain, size_t, size_t) {
      const size_t j = chain % n, i = phase - j;
      if (phase < j || i >= chunks) return true;
      const Chunk chunk = {i * chunk_, std::min(steps, (i + 1) * chunk_), i * chunk_, i % 2};
      const Place at = place_of(all, chain / n);
      for (size_t l = L * j / n; l < L * (j + 1) / n; ++l)
        if (!layer_and_join(alone, at, l, chunk)) return false;
      return true;
    });
    if (!go) return;
  }
}

// Parts of the rows, and perhaps directions. A layer needs the whole of the one below.
template <class Real>
void ForwardPass<Real>::two_directions(const Team& all) {
  const size_t steps = order_.steps(), links = ceil_div(steps, link_), D = plan_.directions;
  const Team alone = all.alone();
  for (size_t l = 0; l < s_.layers; ++l) {
    bool go = all.chains(plan_.row_parts() * D, 2 / D * links, [&](size_t chain, size_t begin, size_t end) {
      const Place at = place_of(all, chain / D);
      for (size_t next = 0; begin < end; begin = next) {
        next = std::min(end, (begin / links + 1) * links);
        const size_t d = D == 2 ? chain % 2 : begin / links, first = begin % links * link_;
        if (!layer(alone, at, l, d, {first, std::min(steps, first + (next - begin) * link_), 0, 0})) return false;
      }
      return true;
    });
    if (go && joins_behind(l)) {
      const Place at = {0, order_.batch(), thread_scratch_ + all.rank, nullptr};
      go = all.share(steps, [&](const Team& share) { join(share, at, l, {0, steps, 0, 0}); });
    }
    if (!go) return;
  }
}

// The units of each step, by teams that have a part of the rows and perhaps a direction.
template <class Real>
void ForwardPass<Real>::units(const Team& all) {
  Progress progress;
  const size_t index = all.rank / plan_.units;
  const Team team = teams_.empty() ? all : all.in_team(plan_.units, *teams_[index], progress);
  const Place at = place_of(all, index / plan_.directions);
  if (s_.directions == 1)
    units_of_one_direction(all, team, at);
  else
    units_of_two_directions(all, team, at, plan_.directions == 2 ? index % 2 : 2);
}

// The caller can't do the work of a whole team, so it waits for one thread of each, after which the others' is done.
template <class Real>
bool ForwardPass<Real>::meet(const Team& all) const {
  return teams_.empty() ? all.go() : all.meet([&](size_t thread) { return thread % plan_.units == 0; });
}

template <class Real>
void ForwardPass<Real>::units_of_one_direction(const Team& all, const Team& team, const Place& at) {
  const size_t steps = order_.steps(), chunks = ceil_div(steps, chunk_);
  bool go = true;
  for (size_t i = 0; go && i < chunks; ++i)
    for (size_t l = 0; go && l < s_.layers; ++l)
      go = layer_and_join(team, at, l, {i * chunk_, std::min(steps, (i + 1) * chunk_), i * chunk_, i % 2});
  if (!go && !teams_.empty()) sharing_->stop();
  meet(all);
}

// Of one direction, or of both, one after the other.
template <class Real>
void ForwardPass<Real>::units_of_two_directions(const Team& all, const Team& team, const Place& at, size_t direction) {
  const Place whole = {0, order_.batch(), at.thread, nullptr};
  for (size_t l = 0; l < s_.layers; ++l) {
    const Chunk chunk = {0, order_.steps(), 0, 0};
    bool go = true;
    for (size_t d = 0; go && d < 2; ++d)
      if (direction == 2 || d == direction) go = layer(team, at, l, d, chunk);
    if (!go && !teams_.empty()) sharing_->stop();
    go = meet(all) && go;
    if (go && joins_behind(l)) go = all.share(chunk.s1, [&](const Team& share) { join(share, whole, l, chunk); });
    if (!go) return;
  }
}

// The output of a layer's directions: side by side, at d * R each.
template <class Real>
Plane<Real> ForwardPass<Real>::raw_of(size_t l, const Place& at, const Chunk& chunk) const {
  if (call_.tape) return call_.tape->rows.plane(call_.tape->y[l].data(), s_.raw(), at.row0);
  if (!s_.joined()) return output_of(l, at, chunk);
  Plane<Real> plane = raw_[s_.directions == 1 ? l : 0];
  plane.t0 = s_.directions == 1 ? chunk.chunk0 : 0;
  return plane;
}

// The input of the next layer, or y; a chunk's buffer starts with the chunk's first step.
template <class Real>
Plane<Real> ForwardPass<Real>::output_of(size_t l, const Place& at, const Chunk& chunk) const {
  if (l + 1 == s_.layers) return call_.y;
  const size_t width = s_.input_of(l + 1);
  if (call_.tape) {
    Buffer<Real>& in = call_.tape->in[l + 1];
    return call_.tape->rows.plane(in.size() ? in.data() : call_.tape->y[l].data(), width, at.row0);
  }
  Plane<Real> plane = between_[s_.directions == 1 ? l * 2 + chunk.parity : l % 2];
  plane.t0 = s_.directions == 1 ? chunk.chunk0 : 0;
  return plane;
}

template <class Real>
Plane<const Real> ForwardPass<Real>::input_of(size_t l, const Place& at, const Chunk& chunk) const {
  return l == 0 ? call_.x : read_only(output_of(l - 1, at, chunk));
}

template <class Real>
bool ForwardPass<Real>::layer(const Team& team, const Place& at, size_t l, size_t d, const Chunk& chunk) {
  const size_t R = s_.recurrent(), C = s_.cell(), B = call_.batch, state = l * s_.directions + d;
  const bool last = l + 1 == s_.layers;
  ForwardTask<Real> task = {};
  task.l = l;
  task.d = d;
  task.s0 = chunk.s0;
  task.s1 = chunk.s1;
  task.row0 = at.row0;
  task.row1 = at.row1;
  task.in = input_of(l, at, chunk);
  task.keep_x = layers_keep_x_ && l == 0 && d == 0;
  task.out = raw_of(l, at, chunk);
  task.out.base += d * R;
  if (call_.tape && last && !joins_behind(l)) {
    task.copy = call_.y;
    task.copy.base += d * R;
  }
  if (call_.tape && C) {
    task.cells = call_.tape->rows.plane(call_.tape->c[state].data(), C, at.row0);
  } else if (call_.cells && last) {
    task.cells = call_.cells;
    task.cells.base += d * C;
  }
  task.h = call_.h + state * B * R;
  task.c = call_.c + state * B * C;
  const bool first = chunk.s0 == 0;
  auto before = [&](const Real* given, const Real* now, size_t columns, size_t& row) {
    row = first && !given ? 0 : columns;
    return !first ? now : given ? given + state * B * columns : context_.zeros;
  };
  task.h0 = before(call_.h0, task.h, R, task.h0_row);
  task.c0 = before(call_.c0, task.c, C, task.c0_row);
  task.thread = at.thread;
  task.team = at.team;
  return forward_layer(team, context_, task);
}

// For one direction.
template <class Real>
bool ForwardPass<Real>::layer_and_join(const Team& team, const Place& at, size_t l, const Chunk& chunk) {
  if (!layer(team, at, l, 0, chunk)) return false;
  if (!joins_behind(l)) return true;
  return team.share(chunk.s1 - chunk.s0, [&](const Team& share) { join(share, at, l, chunk); });
}

// Merge, shortcut and dropout behind layer l, for a share of the steps.
template <class Real>
void ForwardPass<Real>::join(const Team& team, const Place& place, size_t l, const Chunk& chunk) {
  const Plane<Real> raw = raw_of(l, place, chunk), to = output_of(l, place, chunk);
  const Plane<const Real> in = input_of(l, place, chunk);
  const bool last = l + 1 == s_.layers, dense = s_.options.shortcut == Shortcut::dense && !last;
  const bool reverse = s_.directions == 1 && s_.options.reverse;
  const size_t O = s_.output(), steps = chunk.s1 - chunk.s0;
  Real* work = place.thread->join_work;
  JoinRow<Real> rows[kJoinRows];
  size_t n = 0;
  for (size_t s = chunk.s0 + team.begin(steps); s < chunk.s0 + team.end(steps); ++s)
    for (size_t r = place.row0; r < std::min(place.row1, order_.active_rows(s)); ++r) {
      const size_t t = order_.time(r, s, reverse), b = order_.index(r);
      JoinRow<Real>& row = rows[n++];
      row = {};
      row.raw = raw.at(t, b);
      row.in = in.at(t, b);
      row.to = to.at(t, b);
      if (dense) {
        row.head = row.to;
        row.to += s_.input_of(l);
      }
      if (call_.tape && s_.highway(l)) row.transform = call_.tape->transform[l].data() + call_.tape->rows.at(t, b) * O;
      if (masks() && !last && !masks()->dropout.empty()) row.dropped = masks()->dropout[l] + (t * call_.batch + b) * O;
      if (n < kJoinRows) continue;
      join_forward(w_, l, rows, n, work);
      team.worked(s_.highway(l) ? product_flops(n, O, O) : kJoinFlops * double(n * O));
      if (control_.stopped()) return;
      n = 0;
    }
  if (n) join_forward(w_, l, rows, n, work);
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace quadgate
