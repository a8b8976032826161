// int4: see integer.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

using Int4 = Either<Integer<4, false>, Integer<4, true>>;

}  // namespace lowbit::LOWBIT_BODY
