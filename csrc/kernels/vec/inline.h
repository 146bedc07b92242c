// QG_INLINE: a function that is never called, only inlined, so that no copy of it exists that the linker could share
// between instruction sets. QG_OUTLINE: one that is compiled once, not in every tile that calls it. QG_SMALL: one that
// is compiled for size.
#pragma once

#define QG_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define QG_OUTLINE __attribute__((noinline))
#else
#define QG_OUTLINE __attribute__((noinline, noclone))
#endif
#define QG_SMALL __attribute__((cold))
