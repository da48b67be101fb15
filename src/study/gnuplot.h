/* gnuplot as a program: a script in, an SVG picture that can stand in an HTML page out. */
#ifndef BL_STUDY_GNUPLOT_H
#define BL_STUDY_GNUPLOT_H

#include "base/base.h"

/* Colours for scripts, as in: plot .. lc rgb '#010002'. In the picture they are the variables of
 * the page's style sheet that follow, so that they fit a dark page as well as a light one. */
#define BL_INK_FAINT      "#010000" /* --faint */
#define BL_INK_UNDECIDED  "#010001" /* --undecided */
#define BL_INK_HELPS      "#010002" /* --helps */
#define BL_INK_HURTS      "#010003" /* --hurts */
#define BL_INK_EQUIVALENT "#010004" /* --equivalent */
#define BL_INK_BASELINE   "#010005" /* --baseline */

/* Runs `commands` after `set terminal svg size WIDTH,HEIGHT` and adds one <svg> element to `out`.
 * Black becomes the colour of the page's text and white that of the page (--page); every id begins
 * with `id`; `label` (already escaped for HTML) tells those who cannot see the picture what it
 * shows. BL_NOT_FOUND if there is no gnuplot, BL_IO if it failed; then `out` is as it was. */
bl_status bl_gnuplot(const char *commands, int width, int height, const char *id, const char *label,
                     bl_text *out);

#endif
