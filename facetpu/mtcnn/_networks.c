/* The detector's networks: chains of convolutions, each followed by PReLU and perhaps a maximum over a few pixels.
 *
 * A row of pixels goes through the whole chain as soon as it can, so that what lies between two layers stays in
 * cache. TFLite computes the same to some 1e-5 of a logit; sums are in another order here, always the same one.
 */

#if (defined(__x86_64__) || defined(__aarch64__)) && defined(__GNUC__)

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#define FAST __attribute__((target("avx2,fma")))
#define LANES 8
#else
#define FAST
#define LANES 4
#endif
#define INLINE static inline __attribute__((always_inline)) FAST

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int mask __attribute__((vector_size(4 * LANES), aligned(4)));

#define PANEL 16 /* outputs that are computed at once */
#define VECTORS (PANEL / LANES)
#define TILE 6 /* pixels that are computed at once: 12 sums, as many as the registers of AVX2 hold */

#define OUT 3 /* Winograd's F(3x3, 3x3): squares of 3 x 3 pixels from 5 x 5, by 25 products instead of 81 */
#define IN 5
#define KERNEL 3 /* the most rows of a kernel, and the largest maximum */
#define LAYERS 8 /* the most of a chain */
#define IMAGES 4 /* that go through the chain side by side: small ones fill whole tiles so */

/* A layer, as networks.py packs it. */
typedef struct {
    int rows, columns, inputs, outputs; /* of the kernel */
    int pool;     /* side of the squares that maxima are taken of, 2 pixels apart; 1 for no maxima */
    int beyond;   /* whether the last squares may reach beyond the edge */
    int winograd; /* whether the weights are made for F(3x3, 3x3), from a kernel of 3 x 3 */
    const float *weights;       /* [outputs / PANEL][25 with winograd][rows][columns][inputs][PANEL] */
    const float *bias, *slopes; /* [outputs]; all three filled up with zeros to whole PANELs */
} layer;

/* A layer at work on IMAGES at most, of one size, side by side. Rows are those of all the images. */
typedef struct {
    const layer *layer;
    int in_height;                           /* of the input */
    int width, height, out_width, out_height; /* of the convolution's output, and of its maxima */
    int tiles;                               /* squares of OUT pixels across one image */
    int taken, made, sent;                   /* rows of input, of the convolution and of maxima so far */
    long in_pitch, pitch, out_pitch;         /* values of a row from one image to the next */
    const float *rows[IN];                   /* a ring: the last rows of input, for winograd spread across */
    float *lines[OUT + KERNEL - 1];          /* a ring: rows of the convolution that maxima are taken of */
    int line_count;
    float *out; /* a ring of rows of maxima, which the next layer reads; zeros behind each */
    long out_row;
    int out_count;
    float *spread, *zeros, *squares, *sums; /* for winograd: a ring of rows, one row, IN * IN rows, their products */
    long spread_row;
} stage;

INLINE lanes load(const float *from) { return *(const lanes *)from; }

INLINE void store(float *to, lanes values) { *(lanes *)to = values; }

#if defined(__x86_64__)
INLINE lanes larger(lanes a, lanes b) { return (lanes)__builtin_ia32_maxps256(a, b); }
INLINE lanes smaller(lanes a, lanes b) { return (lanes)__builtin_ia32_minps256(a, b); }
#else
INLINE lanes choose(mask which, lanes a, lanes b) { return (lanes)(((mask)a & which) | ((mask)b & ~which)); }
INLINE lanes larger(lanes a, lanes b) { return choose(a > b, a, b); }
INLINE lanes smaller(lanes a, lanes b) { return choose(a < b, a, b); }
#endif

INLINE lanes prelu(lanes x, lanes slopes) { return larger(x, (lanes){0}) + slopes * smaller(x, (lanes){0}); }

static int whole_lanes(int inputs) { return (inputs + LANES - 1) / LANES * LANES; }

static int whole_panels(int outputs) { return (outputs + PANEL - 1) / PANEL * PANEL; }

/* Products of pixels and the weights of PANEL outputs, summed up.
 *
 * from    for each row of the kernel, the first pixel's first value
 * span    values in a row that a pixel's output is made of
 * step    values from one pixel's first to the next pixel's first
 * bias    [PANEL] with slopes [PANEL]: what the sums begin with, and their PReLU; NULL for the bare sums
 * to      PANEL values a pixel, pitch values apart
 */
INLINE void multiply_tile(const float *const *from, int rows, int span, long step, const float *weights,
                          const float *bias, const float *slopes, float *to, long pitch, const int pixels)
{
    lanes sums[TILE][VECTORS];
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < VECTORS; v++)
            sums[p][v] = bias ? load(bias + v * LANES) : (lanes){0};
    for (int row = 0; row < rows; row++) {
        const float *at = from[row];
        for (int i = 0; i < span; i++, at++, weights += PANEL)
            for (int p = 0; p < pixels; p++)
                for (int v = 0; v < VECTORS; v++)
                    sums[p][v] += load(weights + v * LANES) * at[p * step];
    }
    for (int p = 0; p < pixels; p++)
        for (int v = 0; v < VECTORS; v++)
            store(to + p * pitch + v * LANES, bias ? prelu(sums[p][v], load(slopes + v * LANES)) : sums[p][v]);
}

/* The same for any number of pixels, in tiles of much the same size: a small one would wait for its own sums. */
FAST static void multiply(const float *const *rows, int count, int span, long step, int pixels, const float *weights,
                          const float *bias, const float *slopes, float *to, long pitch)
{
    int tiles = (pixels + TILE - 1) / TILE, least = pixels / tiles, more = pixels % tiles;
    for (int tile = 0, first = 0; tile < tiles; tile++) {
        const float *from[KERNEL];
        for (int row = 0; row < count; row++)
            from[row] = rows[row] + first * step;
        float *at = to + first * pitch;
        int some = least + (tile < more);
        switch (some) {
#define CASE(n) case n: multiply_tile(from, count, span, step, weights, bias, slopes, at, pitch, n); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#undef CASE
        }
        first += some;
    }
}

/* One row of a convolution: its kernel's rows of input to PANELs of outputs. */
FAST static void convolve(const stage *s, int images, const float *const *rows, float *line)
{
    const layer *l = s->layer;
    int outputs = whole_panels(l->outputs), span = l->columns * l->inputs;
    for (int image = 0; image < images; image++, line += s->pitch) {
        const float *from[KERNEL];
        for (int row = 0; row < l->rows; row++)
            from[row] = rows[row] + image * s->in_pitch;
        for (int o = 0; o < outputs; o += PANEL)
            multiply(from, l->rows, span, l->inputs, s->width, l->weights + (long)o * l->rows * span, l->bias + o,
                     l->slopes + o, line + o, outputs);
    }
}

/* Winograd's F(3x3, 3x3) with the points 0, 1, -1, 2 and infinity, in one direction. (Lavin and Gray, "Fast
 * Algorithms for Convolutional Neural Networks", 2015.) */
INLINE void spread(const lanes in[IN], lanes out[IN])
{
    lanes odd = in[3] - in[1];
    out[0] = odd - 2 * (in[2] - in[0]);
    out[1] = in[3] - in[2] - 2 * in[1];
    out[2] = in[3] - 3 * in[2] + 2 * in[1];
    out[3] = odd;
    out[4] = in[4] - in[2] - 2 * odd;
}

INLINE void gather(const lanes in[IN], lanes out[OUT])
{
    lanes sum = in[1] + in[2], difference = in[1] - in[2];
    out[0] = in[0] + sum + in[3];
    out[1] = difference + 2 * in[3];
    out[2] = sum + 4 * in[3] + in[4];
}

/* A row of input spread across, [IN][images][tiles][inputs up to whole LANES]. */
FAST static void spread_across(const stage *s, int images, const float *row, float *to)
{
    long inputs = s->layer->inputs, square = whole_lanes(inputs);
    long point = images * s->tiles * square;
    for (int image = 0; image < images; image++)
        for (int tile = 0; tile < s->tiles; tile++, to += square)
            for (long i = 0; i < inputs; i += LANES) {
                const float *at = row + image * s->in_pitch + OUT * tile * inputs + i;
                lanes in[IN], out[IN];
                for (int k = 0; k < IN; k++)
                    in[k] = load(at + k * inputs);
                spread(in, out);
                for (int k = 0; k < IN; k++)
                    store(to + k * point + i, out[k]);
            }
}

/* IN such rows of length values, spread down: [IN][length]. */
FAST static void spread_down(const float *const *rows, long length, float *to)
{
    for (long i = 0; i < length; i += LANES) {
        lanes in[IN], out[IN];
        for (int k = 0; k < IN; k++)
            in[k] = load(rows[k] + i);
        spread(in, out);
        for (int k = 0; k < IN; k++)
            store(to + k * length + i, out[k]);
    }
}

/* The squares that products make, PANEL outputs of each: sums [IN * IN][count][PANEL], count squares beside each
 * other in lines of so many outputs a pixel. */
FAST static void gather_squares(const float *sums, long step, int count, const float *bias, const float *slopes,
                                float *const *lines, long to, long outputs)
{
    for (int square = 0; square < count; square++, sums += PANEL, to += OUT * outputs)
        for (int v = 0; v < PANEL; v += LANES) {
            lanes columns[IN][OUT];
            for (int k = 0; k < IN; k++) {
                lanes column[IN];
                for (int row = 0; row < IN; row++)
                    column[row] = load(sums + v + (row * IN + k) * step);
                gather(column, columns[k]);
            }
            for (int row = 0; row < OUT; row++) {
                lanes across[IN], out[OUT];
                for (int k = 0; k < IN; k++)
                    across[k] = columns[k][row];
                gather(across, out);
                for (int x = 0; x < OUT; x++)
                    store(lines[row] + to + v + x * outputs, prelu(out[x] + load(bias + v), load(slopes + v)));
            }
        }
}

/* OUT rows of a convolution from IN spread rows of input. */
FAST static void convolve_squares(const stage *s, int images, const float *const *rows, float *const *lines)
{
    const layer *l = s->layer;
    int tiles = images * s->tiles, outputs = whole_panels(l->outputs);
    long square = whole_lanes(l->inputs), point = tiles * square, step = (long)tiles * PANEL;
    const float *weights = l->weights;
    spread_down(rows, IN * point, s->squares);
    for (int o = 0; o < outputs; o += PANEL) {
        for (int k = 0; k < IN * IN; k++, weights += l->inputs * PANEL) {
            const float *from = s->squares + k * point;
            multiply(&from, 1, l->inputs, square, tiles, weights, NULL, NULL, s->sums + k * step, PANEL);
        }
        for (int image = 0; image < images; image++)
            gather_squares(s->sums + (long)image * s->tiles * PANEL, step, s->tiles, l->bias + o, l->slopes + o, lines,
                           image * s->pitch + o, outputs);
    }
}

/* The maximum over the pixels of a few rows from the value at on, for each of the outputs. */
INLINE void pool_pixel(const float *const *lines, long at, int rows, int columns, long pitch, int outputs, float *to)
{
    for (int o = 0; o < outputs; o += LANES) {
        lanes best = load(lines[0] + at + o);
        for (int row = 0; row < rows; row++)
            for (int column = 0; column < columns; column++)
                best = larger(load(lines[row] + at + column * pitch + o), best);
        store(to + o, best);
    }
}

/* One row of maxima over a few lines, without what fills up the last PANEL; behind it up to LANES - 1 zeros. */
FAST static void pool_row(const stage *s, const float *const *lines, int rows, float *to)
{
    int side = s->layer->pool, outputs = s->layer->outputs, stride = side > 1 ? 2 : 1;
    long pitch = whole_panels(outputs);
    if (side == 1 && outputs == pitch) {
        memcpy(to, lines[0], s->width * pitch * sizeof(float));
        return;
    }
    for (int x = 0; x < s->out_width; x++, to += outputs) {
        int left = s->width - x * stride, columns = left < side ? left : side;
        long at = x * stride * pitch;
        if (rows != side || columns != side)
            pool_pixel(lines, at, rows, columns, pitch, outputs, to);
        else if (side == 1)
            pool_pixel(lines, at, 1, 1, pitch, outputs, to);
        else if (side == 2)
            pool_pixel(lines, at, 2, 2, pitch, outputs, to);
        else
            pool_pixel(lines, at, 3, 3, pitch, outputs, to);
    }
}

FAST static void push(stage *s, int left, int images, const float *row, float *out, long out_size);

/* Take over one more row of the convolution; send on the row of maxima that it completes. */
FAST static void finish_row(stage *s, int left, int images, float *out, long out_size)
{
    const layer *l = s->layer;
    int first = s->sent * (l->pool > 1 ? 2 : 1), whole = ++s->made - first == l->pool;
    if (s->sent == s->out_height || !(whole || s->made == s->height))
        return;
    float *to = s->out + s->sent % s->out_count * s->out_row;
    for (int image = 0; image < images; image++) {
        const float *lines[KERNEL];
        for (int row = first; row < s->made; row++)
            lines[row - first] = s->lines[row % s->line_count] + image * s->pitch;
        pool_row(s, lines, s->made - first, to + image * s->out_pitch);
    }
    long length = (long)s->out_width * l->outputs;
    int row = s->sent++;
    if (left > 1)
        push(s + 1, left - 1, images, to, out, out_size);
    else
        for (int image = 0; image < images; image++)
            memcpy(out + image * out_size + row * length, to + image * s->out_pitch, length * sizeof(float));
}

/* Give the first of the stages that are left one more row of its input. */
FAST static void push(stage *s, int left, int images, const float *row, float *out, long out_size)
{
    const layer *l = s->layer;
    const float *rows[IN];
    if (!l->winograd) {
        s->rows[s->taken++ % l->rows] = row;
        if (s->taken < l->rows)
            return;
        for (int i = 0; i < l->rows; i++)
            rows[i] = s->rows[(s->made + i) % l->rows];
        convolve(s, images, rows, s->lines[s->made % s->line_count]);
        finish_row(s, left, images, out, out_size);
        return;
    }
    float *spread_row = s->spread + s->taken % IN * s->spread_row;
    spread_across(s, images, row, spread_row);
    s->rows[s->taken++ % IN] = spread_row;
    if (s->taken != s->made + IN && s->taken != s->in_height)
        return;
    for (int i = 0; i < IN; i++)
        rows[i] = s->made + i < s->in_height ? s->rows[(s->made + i) % IN] : s->zeros;
    float *lines[OUT];
    for (int i = 0; i < OUT; i++)
        lines[i] = s->lines[(s->made + i) % s->line_count];
    convolve_squares(s, images, rows, lines);
    for (int i = 0; i < OUT && s->made < s->height; i++)
        finish_row(s, left, images, out, out_size);
}

static float *take(float *memory, long *used, long size)
{
    float *part = memory ? memory + *used : NULL;
    *used += size;
    return part;
}

/* Prepare the stages of a chain, in memory if there is some already. Returns how many values that takes. */
static long prepare(stage *stages, const layer *layers, int count, int images, int height, int width, float *memory)
{
    long used = 0, in_pitch = (long)height * width * layers->inputs;
    for (int i = 0; i < count; i++) {
        const layer *l = layers + i;
        stage *s = stages + i;
        int stride = l->pool > 1 ? 2 : 1, short_of = l->beyond ? 1 : l->pool;
        memset(s, 0, sizeof *s);
        s->layer = l;
        s->in_height = height;
        s->in_pitch = in_pitch;
        s->height = height - l->rows + 1;
        s->width = width - l->columns + 1;
        s->tiles = (s->width + OUT - 1) / OUT;
        s->pitch = (long)(l->winograd ? s->tiles * OUT : s->width) * whole_panels(l->outputs);
        s->line_count = l->pool + (l->winograd ? OUT - 1 : 0);
        for (int line = 0; line < s->line_count; line++)
            s->lines[line] = take(memory, &used, images * s->pitch);
        height = s->out_height = (s->height - short_of) / stride + 1;
        width = s->out_width = (s->width - short_of) / stride + 1;
        /* The next layer's last square may reach 2 pixels beyond, and both end with whole LANES. */
        in_pitch = s->out_pitch = (width + OUT - 1L) * l->outputs + LANES;
        s->out_row = images * s->out_pitch;
        s->out_count = i + 1 < count ? layers[i + 1].rows : 1;
        s->out = take(memory, &used, s->out_count * s->out_row);
        if (l->winograd) {
            s->spread_row = (long)IN * images * s->tiles * whole_lanes(l->inputs);
            s->spread = take(memory, &used, IN * s->spread_row);
            s->zeros = take(memory, &used, s->spread_row);
            s->squares = take(memory, &used, IN * s->spread_row);
            s->sums = take(memory, &used, (long)IN * IN * images * s->tiles * PANEL);
        }
    }
    return used;
}

/* Whether this processor can do it. */
int facetpu_networks_run_here(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

/* Send images through a chain of layers.
 *
 * layers   [count], LAYERS at most, the first without winograd
 * images   float32 [number, height, width, inputs of the first layer]
 * out      float32 [number, height and width that are left, outputs of the last layer]
 * Returns 0, or 1 if there is no memory.
 */
int facetpu_run_network(const layer *layers, int count, const float *images, int number, int height, int width,
                        float *out)
{
    stage stages[LAYERS];
    int most = number < IMAGES ? number : IMAGES;
    float *memory = calloc(prepare(stages, layers, count, most, height, width, NULL), sizeof(float));
    if (!memory)
        return 1;
    prepare(stages, layers, count, most, height, width, memory);
    const stage *last = stages + count - 1;
    long row = (long)width * layers->inputs, size = height * row;
    long out_size = (long)last->out_height * last->out_width * last->layer->outputs;
    for (int first = 0; first < number; first += most, out += most * out_size) {
        for (int i = 0; i < count; i++)
            stages[i].taken = stages[i].made = stages[i].sent = 0;
        for (int y = 0; y < height; y++)
            push(stages, count, number - first < most ? number - first : most, images + first * size + y * row, out,
                 out_size);
    }
    free(memory);
    return 0;
}

#else

int facetpu_networks_run_here(void) { return 0; }

#endif
