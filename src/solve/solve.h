/* The solvers are public: ballast/solve.h. */
#ifndef BL_SOLVE_SOLVE_H
#define BL_SOLVE_SOLVE_H

#include "ballast/solve.h"

#endif
