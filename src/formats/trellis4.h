// trellis4: see trellis.ts for the byte layout.
#pragma once
#include "trellis.h"

namespace lowbit::LOWBIT_BODY {

using Trellis4 = Trellis<4>;

}  // namespace lowbit::LOWBIT_BODY
