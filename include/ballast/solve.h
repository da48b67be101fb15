/* Solvers beside graphs: differential equations.
 *
 * A field is a function that builds graph nodes: dz/dt = f(z, t), with parameters. One step of a
 * solver is nodes as well, so it may stand in any graph and be differentiated there; a whole
 * adaptive solve, whose number of steps depends on values, is a loop on the host over one compiled
 * step, and has its gradient by going back over the steps it took:
 *
 *     static bl_tensor decay(bl_tensor z, bl_tensor t, const bl_tensor *parameter, void *context)
 *     {
 *         return bl_neg(bl_mul(parameter[0], z));
 *     }
 *     bl_type rate = {BL_F64, BL_SCALAR};
 *     bl_ode *ode = NULL;
 *     BL_TRY(bl_ode_new(bl_device_cpu(), decay, NULL, (bl_type){BL_F64, BL_SHAPE(8, 3)}, &rate, 1,
 *                       (bl_ode_options){.relative = 1e-6, .absolute = 1e-6}, &ode));
 *     BL_TRY(bl_ode_solve(ode, &z0, &k, 0, 1, &z1, NULL));
 *     BL_TRY(bl_ode_gradient(ode, &k, &dz1, NULL, NULL, &dz0, &dk));     of <dz1, z1>
 *     bl_ode_free(ode);
 */
#ifndef BALLAST_SOLVE_H
#define BALLAST_SOLVE_H

#include "ballast/program.h"

/* --- ordinary differential equations ------------------------------------------------------- */

/* Builds f(z, t), of z's type, for z of any shape in f32 or f64, and t, a scalar of that dtype. A
 * batch is one equation with many unknowns: its rows share their steps. */
typedef bl_tensor bl_ode_field(bl_tensor z, bl_tensor t, const bl_tensor *parameter, void *context);

/* What a step gives. Norms are rms(v) = sqrt(mean of v^2), over all entries. */
typedef struct bl_ode_step {
    bl_tensor z;         /* at t + dt */
    bl_tensor slope;     /* f there: the next step's first stage */
    bl_tensor error;     /* rms(e / (absolute + relative max(|before|, |after|))) of the local error e */
    bl_tensor error_rms; /* rms(e) */
    bl_tensor stiffness; /* |df| / |dz| of the last two stages; 0 where dz is 0 */
} bl_ode_step;

/* One step of Tsitouras' method of order 5 with an error estimate of order 4 (2011), from z at t,
 * where slope is f(z, t), to t + dt. Tolerances are positive numbers or scalars. The stiffness is an
 * estimate of the largest eigenvalue of f's derivative; times dt it may be about 3.5. */
BL_API bl_ode_step bl_tsit5_step(bl_ode_field *field, void *context, const bl_tensor *parameter,
                                 bl_tensor z, bl_tensor slope, bl_tensor t, bl_tensor dt,
                                 bl_tensor relative, bl_tensor absolute);
#define bl_tsit5_step(field, context, parameter, z, slope, t, dt, relative, absolute)              \
    BL_AT(bl_tsit5_step(field, context, parameter, BL_T(z), BL_T(slope), BL_T(t), BL_T(dt),        \
                        BL_T(relative), BL_T(absolute)))

typedef struct bl_ode_options {
    double relative, absolute; /* tolerances, > 0; near 1e-6 the state should be f64 */
    double first_step;         /* 0: chosen from the field (Hairer, Norsett and Wanner, II.4) */
    int64_t most_steps;        /* accepted and rejected ones; 0: 10000 */
} bl_ode_options;

/* A step that was taken: from t to t + dt. */
typedef struct bl_ode_accepted {
    double t, dt, error, stiffness;
} bl_ode_accepted;

typedef struct bl_ode_report {
    const bl_ode_accepted *step; /* [accepted], until the next solve or bl_ode_free */
    int64_t accepted, rejected;
    int64_t evaluations; /* of the field, by the solver: 1, 1 more to choose a first step, 6 a step */
} bl_ode_report;

/* An equation compiled for a device, a type of state (f32 or f64) and of its parameters, and the
 * steps of its last solve. `context` must live as long. One bl_ode is not used by two threads at
 * once. */
typedef struct bl_ode bl_ode;
BL_API bl_status bl_ode_new(const bl_device *device, bl_ode_field *field, void *context,
                            bl_type state, const bl_type *parameter, int parameters,
                            bl_ode_options options, bl_ode **out);
BL_API void bl_ode_free(bl_ode *ode);

/* z1, the caller's array of the state's type, becomes the solution at t1 > t0 that is z0 at t0, by
 * Tsitouras' method with steps that a proportional-integral controller chooses so that each error
 * is at most 1. `report` may be NULL. Errors: a state or slope that is not finite, more than
 * most_steps, a step that no longer moves t. */
BL_API bl_status bl_ode_solve(bl_ode *ode, const bl_array *z0, const bl_array *parameter, double t0,
                              double t1, bl_array *z1, bl_ode_report *report);

/* The gradient of <dz1, z1> + sum over steps of (derror error + dstiffness stiffness) in z0 and the
 * parameters, of the last solve, back over its accepted steps, whose sizes are constants. derror and
 * dstiffness are [accepted], or NULL for zeros. dz0 and dparameter[..] are the caller's arrays, which
 * are overwritten. The parameters are those of the solve. */
BL_API bl_status bl_ode_gradient(bl_ode *ode, const bl_array *parameter, const bl_array *dz1,
                                 const double *derror, const double *dstiffness, bl_array *dz0,
                                 bl_array *dparameter);

/* --- stochastic differential equations ------------------------------------------------------ */

/* dz = drift dt + diffusion dW in Ito's sense, with noise of its own for each entry. */
typedef struct bl_sde {
    bl_ode_field *drift, *diffusion;
    void *context;
    const bl_tensor *parameter; /* both get the same */
} bl_sde;

typedef enum bl_sri_tableau {
    BL_SOSRI, /* for tolerances that are not strict */
    BL_SOSRI2 /* stable for larger steps: its stiffness times dt may be about 10.6 */
} bl_sri_tableau;

typedef struct bl_sde_step {
    bl_tensor z, error, stiffness;
} bl_sde_step;

/* One step of a stochastic Runge-Kutta method of strong order 1.5 (Rackauckas and Nie 2017, 2020)
 * from z at t to t + dt. dw and dv, of z's type, are two independent draws of variance dt for each
 * entry: dw is how far the Brownian motion goes, dt (dw + dv / sqrt 3) / 2 its integral from where
 * it was. `delta` weighs the drift's part of the error. */
BL_API bl_sde_step bl_sri_step(bl_sri_tableau tableau, bl_sde sde, bl_tensor z, bl_tensor t,
                               bl_tensor dt, bl_tensor dw, bl_tensor dv, bl_tensor relative,
                               bl_tensor absolute, bl_tensor delta);
#define bl_sri_step(tableau, sde, z, t, dt, dw, dv, relative, absolute, delta)                     \
    BL_AT(bl_sri_step(tableau, sde, BL_T(z), BL_T(t), BL_T(dt), BL_T(dw), BL_T(dv),                \
                      BL_T(relative), BL_T(absolute), BL_T(delta)))

#endif
