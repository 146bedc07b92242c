// A forward call: its plan, its memory and its threads.
#pragma once

#include <memory>
#include <vector>

#include "memory/carver.h"
#include "parallel/pace.h"
#include "parallel/plan.h"
#include "parallel/pool.h"
#include "rnn/forward/layer.h"
#include "rnn/join.h"

namespace quadgate {

template <class Real>
class ForwardPass {
 public:
  ForwardPass(const ForwardCall<Real>& call, const RowOrder& order, Control& control)
      : call_(call),
        w_(*call.weights),
        s_(w_.sizes),
        order_(order),
        control_(control),
        n_(sizes()),
        context_{call, w_, s_, order, n_} {}

  bool run(Pace& pace);

 private:
  // The rows [row0, row1) and the memory of the thread, or of the team, that works on them.
  struct Place {
    size_t row0, row1;
    const ForwardThreadScratch<Real>* thread;
    const ForwardTeamScratch<Real>* team;
  };
  // Steps [s0, s1): a chunk that begins with step `chunk0`, or a part of it. Its outputs take one of the two buffers
  // behind a layer, by its parity. With two directions all steps are one chunk, and layers take turns with the buffers.
  struct Chunk {
    size_t s0, s1, chunk0, parity;
  };

  ForwardSizes sizes() const;
  void prepare_outputs();
  bool keep_inputs(const Team& all);
  void finish_outputs();
  size_t chunk_steps() const;
  void carve(Carver& carver);
  size_t steps_of_link() const;
  bool projects_ahead(size_t rows) const;
  Place place_of(const Team& team, size_t part) const;
  void thread(size_t rank);
  void one_direction(const Team& all);
  void pipeline(const Team& all);
  void two_directions(const Team& all);
  void units(const Team& all);
  void units_of_one_direction(const Team& all, const Team& team, const Place& at);
  void units_of_two_directions(const Team& all, const Team& team, const Place& at, size_t direction);
  bool meet(const Team& all) const;
  bool layer(const Team& team, const Place& at, size_t l, size_t d, const Chunk& chunk);
  bool layer_and_join(const Team& team, const Place& at, size_t l, const Chunk& chunk);
  void join(const Team& share, const Place& at, size_t l, const Chunk& chunk);
  Plane<Real> raw_of(size_t l, const Place& at, const Chunk& chunk) const;
  Plane<Real> output_of(size_t l, const Place& at, const Chunk& chunk) const;
  Plane<const Real> input_of(size_t l, const Place& at, const Chunk& chunk) const;
  const Masks* masks() const { return call_.tape ? &call_.tape->masks : nullptr; }
  bool joins_behind(size_t l) const { return quadgate::joins_behind(s_, l, masks()); }

  const ForwardCall<Real>& call_;
  const Weights<Real>& w_;
  const Sizes& s_;
  const RowOrder& order_;
  Control& control_;
  const ForwardSizes n_;
  ForwardContext<Real> context_;
  Plan plan_;
  size_t threads_ = 1;
  size_t chunk_ = 0;  // steps that all layers do before the next ones (one direction)
  size_t link_ = 0;   // steps that a thread does of a layer before another may go on
  ForwardThreadScratch<Real>* thread_scratch_ = nullptr;  // by rank
  ForwardTeamScratch<Real>* team_scratch_ = nullptr;      // by team, of plan_.units neighbouring threads
  bool layers_keep_x_ = false;                            // for the tape
  Plane<Real>* between_ = nullptr;  // outputs of lower layers, which are the next one's inputs; two for each
  Plane<Real>* raw_ = nullptr;      // outputs of the layers that are joined before they are given on
  // Of all threads, and of the teams that share units if there are several; none for a single thread.
  std::unique_ptr<Sharing> sharing_;
  std::vector<std::unique_ptr<Sharing>> teams_;
};

}  // namespace quadgate
