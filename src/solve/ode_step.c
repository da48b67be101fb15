/* Single steps of solvers of differential equations, as graph nodes: Tsitouras' pair for ordinary
 * ones, stochastic Runge-Kutta methods for Ito equations with diagonal noise. Both give, beside the
 * next state, what they know about themselves: the local error in units of the tolerance, and how
 * stiff the field is. ode.c drives the first with steps of its own choice.
 *
 * Another method is a tableau and a loop over its stages. */
#define BL_KEEP_PLACE
#include "ballast/solve.h"

#include <math.h>

static bl_tensor rms(bl_tensor v)
{
    return bl_sqrt(bl_mean(bl_square(v)));
}

/* sum of weight[i] v[i]; 0, a bare number, where all weights are 0. */
static bl_tensor weighted(const double *weight, const bl_tensor *v, int count)
{
    bl_tensor sum = bl_number(0);
    for (int i = 0; i < count; i++)
        if (weight[i] < 0 || weight[i] > 0)
            sum = bl_add(sum, bl_mul(weight[i], v[i]));
    return sum;
}

/* rms(e / (absolute + relative max(|before|, |after|))) */
static bl_tensor scaled_error(bl_tensor e, bl_tensor before, bl_tensor after, bl_tensor relative,
                              bl_tensor absolute)
{
    bl_tensor size = bl_max(bl_abs(before), bl_abs(after));
    return rms(bl_div(e, bl_add(absolute, bl_mul(relative, size))));
}

/* rms(df) / rms(dz); 0 where dz is 0. */
static bl_tensor stiffness_of(bl_tensor df, bl_tensor dz)
{
    bl_tensor way = rms(dz), moved = bl_gt(way, 0);
    return bl_select(moved, bl_div(rms(df), bl_select(moved, way, 1)), 0);
}

/* --- Tsitouras 5(4) --------------------------------------------------------------------------- */

enum { TSIT5_STAGES = 7 };

static const double tsit5_c[TSIT5_STAGES] = {0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1};

/* The last row gives the next state, whose slope is the last stage. */
static const double tsit5_a[TSIT5_STAGES][TSIT5_STAGES - 1] = {
    {0},
    {0.161},
    {-0.008480655492356989, 0.335480655492357},
    {2.8971530571054935, -6.359448489975075, 4.3622954328695815},
    {5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525},
    {5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
     -0.028269050394068383},
    {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
     2.324710524099774}};

/* Weights of order 5 less those of order 4. */
static const double tsit5_error[TSIT5_STAGES] = {
    -0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629,
    0.5823571654525552,      -0.45808210592918697,   0.015151515151515152};

bl_ode_step(bl_tsit5_step)(bl_ode_field *field, void *context, const bl_tensor *parameter,
                           bl_tensor z, bl_tensor slope, bl_tensor t, bl_tensor dt,
                           bl_tensor relative, bl_tensor absolute)
{
    enum { LAST = TSIT5_STAGES - 1 };
    bl_tensor k[TSIT5_STAGES] = {slope}, next = z;
    for (int s = 1; s <= LAST; s++) {
        next = bl_add(z, bl_mul(dt, weighted(tsit5_a[s], k, s)));
        k[s] = field(next, bl_add(t, bl_mul(tsit5_c[s], dt)), parameter, context);
    }
    /* next minus where stage 6 stood, without the cancellation of a difference of states */
    double way[LAST];
    for (int r = 0; r < LAST; r++)
        way[r] = tsit5_a[LAST][r] - tsit5_a[LAST - 1][r];
    bl_tensor e = bl_mul(dt, weighted(tsit5_error, k, TSIT5_STAGES));
    return (bl_ode_step){
        .z = next,
        .slope = k[LAST],
        .error = scaled_error(e, z, next, relative, absolute),
        .error_rms = rms(e),
        .stiffness = stiffness_of(bl_sub(k[LAST], k[LAST - 1]), bl_mul(dt, weighted(way, k, LAST))),
    };
}

/* --- stochastic Runge-Kutta methods ------------------------------------------------------------
 */

enum { SRI_STAGES = 4 };

/* Rows of a and b: weights of drifts and diffusions in each stage, where the drift (0) and the
 * diffusion (1) are evaluated at different places. alpha and beta: of the step. */
typedef struct sri_tableau {
    double c0[SRI_STAGES], c1[SRI_STAGES];
    double a0[SRI_STAGES][3], a1[SRI_STAGES][3], b0[SRI_STAGES][3], b1[SRI_STAGES][3];
    double alpha[SRI_STAGES], beta1[SRI_STAGES], beta2[SRI_STAGES];
    double beta3[SRI_STAGES], beta4[SRI_STAGES];
} sri_tableau;

static const sri_tableau sosri = {
    .c0 = {0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823},
    .c1 = {0, 0.26204282091330466, 0.05879875232001766, 0.758661169101175},
    .a0 = {{0},
           {-0.04199224421316468},
           {2.842612915017106, -2.0527723684000727},
           {4.338237071435815, -2.8895936137439793, 2.3017575594644466}},
    .a1 = {{0},
           {0.26204282091330466},
           {0.20903646383505375, -0.1502377115150361},
           {0.05836595312746999, 0.6149440396332373, 0.08535117634046772}},
    .b0 = {{0},
           {-0.21641093549612528},
           {1.5336352863679572, 0.26066223492647056},
           {-1.0536037558179159, 1.7015284721089472, -0.20725685784180017}},
    .b1 = {{0},
           {-0.5119011827621657},
           {2.67767339866713, -4.9395031322250995},
           {0.15580956238299215, 3.2361551006624674, -1.4223118283355949}},
    .alpha = {1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714},
    .beta1 = {-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956},
    .beta2 = {0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336},
    .beta3 = {2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945},
    .beta4 = {0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704},
};

static const sri_tableau sosri2 = {
    .c0 = {0, 0.13804532298278663, 0.9999999999999992, 0.9999999999999994},
    .c1 = {0, 0.45605532163856893, 0.999999999999996, 0.9999999999999962},
    .a0 = {{0},
           {0.13804532298278663},
           {0.5818361298250374, 0.4181638701749618},
           {0.4670018408674211, 0.8046204792187386, -0.27162232008616016}},
    .a1 = {{0},
           {0.45605532163856893},
           {0.7555807846451692, 0.24441921535482677},
           {0.6981181143266059, 0.3453277086024727, -0.04344582292908241}},
    .b0 = {{0},
           {0.08852381537667678},
           {1.0317752458971061, 0.4563552922077882},
           {1.73078280444124, -0.46089678470929774, -0.9637509618944188}},
    .b1 = {{0},
           {0.6753186815412179},
           {-0.07452812525785148, -0.49783736486149366},
           {-0.5591906709928903, 0.022696571806569924, -0.8984927888368557}},
    .alpha = {-0.15036858140642623, 0.7545275856696072, 0.686995463807979, -0.2911544680711602},
    .beta1 = {-0.45315689727309133, 0.8330937231303951, 0.3792843195533544, 0.24077885458934192},
    .beta2 = {-0.4994383733810986, 0.9181786186154077, -0.25613778661003145, -0.16260245862427797},
    .beta3 = {1.4531568972730915, -0.8330937231303933, -0.3792843195533583, -0.24077885458934023},
    .beta4 = {-0.4976090683622265, 0.9148155835648892, -1.4102107084476505, 0.9930041932449877},
};

/* What a step sees of the Brownian motion: iterated integrals over [t, t + dt]. */
typedef struct brownian {
    bl_tensor root; /* sqrt dt */
    bl_tensor w;    /* dW */
    bl_tensor ww;   /* (dW^2 - dt) / (2 sqrt dt) */
    bl_tensor tw;   /* (dW + dv / sqrt 3) / 2 */
    bl_tensor www;  /* (dW^3 - 3 dW dt) / (6 dt) */
} brownian;

static brownian brownian_of(bl_tensor dt, bl_tensor dw, bl_tensor dv)
{
    bl_tensor root = bl_sqrt(dt), square = bl_square(dw);
    return (brownian){
        .root = root,
        .w = dw,
        .ww = bl_div(bl_sub(square, dt), bl_mul(2, root)),
        .tw = bl_mul(0.5, bl_add(dw, bl_div(dv, sqrt(3)))),
        .www = bl_div(bl_mul(dw, bl_sub(square, bl_mul(3, dt))), bl_mul(6, dt)),
    };
}

bl_sde_step(bl_sri_step)(bl_sri_tableau tableau, bl_sde sde, bl_tensor z, bl_tensor t, bl_tensor dt,
                         bl_tensor dw, bl_tensor dv, bl_tensor relative, bl_tensor absolute,
                         bl_tensor delta)
{
    const sri_tableau *u = tableau == BL_SOSRI ? &sosri : &sosri2;
    brownian b = brownian_of(dt, dw, dv);
    bl_tensor k[SRI_STAGES], g[SRI_STAGES], way[SRI_STAGES]; /* way: of a drift's stage from z */
    for (int s = 0; s < SRI_STAGES; s++) {
        way[s] =
            bl_add(bl_mul(dt, weighted(u->a0[s], k, s)), bl_mul(b.tw, weighted(u->b0[s], g, s)));
        bl_tensor aside =
            bl_add(bl_mul(dt, weighted(u->a1[s], k, s)), bl_mul(b.root, weighted(u->b1[s], g, s)));
        k[s] = sde.drift(bl_add(z, way[s]), bl_add(t, bl_mul(u->c0[s], dt)), sde.parameter,
                         sde.context);
        g[s] = sde.diffusion(bl_add(z, aside), bl_add(t, bl_mul(u->c1[s], dt)), sde.parameter,
                             sde.context);
    }
    static const double one[SRI_STAGES] = {1, 1, 1, 1};
    bl_tensor drifts = bl_mul(dt, weighted(one, k, SRI_STAGES));
    bl_tensor highest = bl_add(bl_mul(b.tw, weighted(u->beta3, g, SRI_STAGES)),
                               bl_mul(b.www, weighted(u->beta4, g, SRI_STAGES)));
    bl_tensor noise = bl_add(bl_mul(b.w, weighted(u->beta1, g, SRI_STAGES)),
                             bl_mul(b.ww, weighted(u->beta2, g, SRI_STAGES)));
    bl_tensor moved = bl_add(bl_mul(dt, weighted(u->alpha, k, SRI_STAGES)), bl_add(highest, noise));
    bl_tensor next = bl_add(z, moved), e = bl_add(bl_mul(delta, drifts), highest);
    return (bl_sde_step){
        .z = next,
        .error = scaled_error(e, z, next, relative, absolute),
        .stiffness = stiffness_of(bl_sub(k[3], k[2]), bl_sub(way[3], way[2])),
    };
}
