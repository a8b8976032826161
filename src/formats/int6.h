// int6: see integer.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

using Int6 = Either<Integer<6, false>, Integer<6, true>>;

}  // namespace lowbit::LOWBIT_BODY
