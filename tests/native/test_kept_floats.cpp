// Room for widened weights, which a thread shares out among the networks that it calls.
#include "check.h"
#include "parallel/this_thread.h"

using quadgate::KeptFloats;

namespace {

constexpr size_t kFloats = 100, kRoom = 2 * kFloats * sizeof(float);

// A call of a network with kFloats: true if it has its floats, or gets room for them.
bool call(KeptFloats& kept, uint64_t network) {
  ++kept.calls;
  KeptFloats::Slot* slot = kept.find(network);
  if (!slot) {
    slot = kept.make(network, kFloats, kRoom);
    if (!slot) return false;
    CHECK(slot->key == 0);
    slot->key = network;
    std::fill(slot->floats.begin(), slot->floats.end(), float(network));
  }
  slot->last_call = kept.calls;
  CHECK(slot->floats.size() == kFloats);
  CHECK(slot->floats[0] == float(network) && slot->floats[kFloats - 1] == float(network));
  return true;
}

size_t bytes(const KeptFloats& kept) {
  size_t sum = 0;
  for (const auto& slot : kept.slots) sum += slot.floats.size() * sizeof(float);
  return sum;
}

void test_second_call() {
  KeptFloats kept;
  CHECK(!call(kept, 1));
  CHECK(call(kept, 1));
  CHECK(call(kept, 1));
  for (uint64_t network = 10; network < 10 + KeptFloats::kSlots; ++network) CHECK(!call(kept, network));
  CHECK(!call(kept, 9));   // none of these was called twice among the last ones
  CHECK(!call(kept, 10));  // forgotten
  CHECK(call(kept, 9));
}

// A stream's steps are sure to follow, and its first one may take longer than those.
void test_network_that_stays() {
  KeptFloats kept;
  ++kept.calls;
  KeptFloats::Slot* slot = kept.make(1, kFloats, kRoom, true);
  CHECK(slot && slot->floats.size() == kFloats);
  slot->key = 1;
  slot->last_call = kept.calls;
  CHECK(!call(kept, 2) && call(kept, 2));
  CHECK(!kept.make(3, kFloats, kRoom, true));  // no room, as for others
}

// Three networks in turn, where two have room: these keep it, and no call makes floats in vain.
void test_turns() {
  KeptFloats kept;
  for (int round = 0; round < 50; ++round)
    for (uint64_t network = 1; network <= 3; ++network) CHECK(call(kept, network) == (round > 0 && network < 3));
  CHECK(bytes(kept) <= kRoom);
}

void test_room_of_networks_no_longer_called() {
  KeptFloats kept;
  for (uint64_t network : {1, 2, 3}) call(kept, network), call(kept, network);
  int calls = 0;
  while (!call(kept, 3)) CHECK(++calls < 1000);
  CHECK(calls > KeptFloats::kSlots);
  CHECK(kept.find(1) == nullptr && kept.find(2) != nullptr);  // the one that waited longest
  CHECK(bytes(kept) <= kRoom);
  CHECK(!kept.make(4, kFloats * 3, kRoom) && !kept.make(4, kFloats * 3, kRoom));  // never as much as this
}

// Floats for calls of many steps may take more than those for short ones, and do not take these ones' room.
void test_room_of_long_calls() {
  KeptFloats kept;
  auto two_calls = [&](uint64_t network, size_t n, size_t most) {
    KeptFloats::Slot* slot = nullptr;
    for (int i = 0; i < 2; ++i) {
      ++kept.calls;
      slot = kept.make(network, n, most);
    }
    if (slot) slot->key = network, slot->last_call = kept.calls;
    return slot != nullptr;
  };
  CHECK(two_calls(1, 3 * kFloats, 2 * kRoom));
  CHECK(two_calls(2, kFloats, kRoom) && two_calls(3, kFloats, kRoom));
  CHECK(!two_calls(4, kFloats, kRoom));
  CHECK(!two_calls(5, kFloats, 2 * kRoom));  // all of them count there
  // None has to leave where that would not do.
  kept.calls += 1000;
  kept.find(2)->last_call = kept.find(3)->last_call = kept.calls;
  CHECK(!two_calls(6, kFloats, kRoom) && kept.find(1));
  CHECK(!two_calls(7, 5 * kFloats, 2 * kRoom) && kept.find(1));
  CHECK(two_calls(8, 2 * kFloats, 2 * kRoom) && !kept.find(1) && kept.find(2) && kept.find(3));
}

}  // namespace

int main() {
  test_second_call();
  test_network_that_stays();
  test_turns();
  test_room_of_networks_no_longer_called();
  test_room_of_long_calls();
  return check::result();
}
