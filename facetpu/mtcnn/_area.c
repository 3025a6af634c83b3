/* The detector's shrinking of areas, in the order of operations of OpenCV's INTER_AREA on float32, so that
 * both give the same bits. facetpu runs without this file's compiled form too, and as exactly, only slower. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef float pixel __attribute__((vector_size(16), aligned(4))); /* R, G, B and the next pixel's R */

#define ROWS 4

typedef struct {
    int target, source;
    float weight;
} part;

/* One axis: what each source pixel gives to each target pixel, both ascending. Returns the number of parts,
 * at most size + 2 * target_size. */
static int parts_of_axis(int size, int target_size, part *parts)
{
    double scale = 1.0 / ((double)target_size / size);
    int count = 0;
    for (int target = 0; target < target_size; target++) {
        double low = target * scale, high = low + scale;
        double width = fmin(scale, size - low);
        int last = (int)fmin(floor(high), size - 1);
        int first = (int)fmin(ceil(low), last);
        if (first - low > 1e-3)
            parts[count++] = (part){target, first - 1, (float)((first - low) / width)};
        for (int source = first; source < last; source++)
            parts[count++] = (part){target, source, (float)(1.0 / width)};
        if (high - last > 1e-3)
            parts[count++] = (part){target, last, (float)(fmin(fmin(high - last, 1.0), width) / width)};
    }
    return count;
}

/* Areas of a whole number of pixels: their sum, times the reciprocal. */
static void shrink_whole(const float *corner, long stride, int rows, int columns, int height, int width, float *out)
{
    float share = 1.0f / (rows * columns);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, out += 3) {
            float red = 0, green = 0, blue = 0;
            for (int row = 0; row < rows; row++) {
                const float *at = corner + (y * rows + row) * stride + 3L * x * columns;
                for (int column = 0; column < columns; column++, at += 3) {
                    red += at[0];
                    green += at[1];
                    blue += at[2];
                }
            }
            out[0] = red * share;
            out[1] = green * share;
            out[2] = blue * share;
        }
}

/* Rows of an image across their length: ROWS at once, since each is a chain of additions that wait for one
 * another. last: scratch for a copy of the last row, a value longer, so that no load reaches beyond the image. */
static void shrink_across(const float *corner, long stride, int rows, int columns, const part *across, int count,
                          long line, float *last, float *out)
{
    memcpy(last, corner + (rows - 1) * stride, 3L * columns * sizeof(float));
    for (int top = 0; top < rows; top += ROWS, out += ROWS * line) {
        const float *from[ROWS];
        for (int i = 0; i < ROWS; i++) /* What fills up the last ROWS is scratch too. */
            from[i] = top + i < rows - 1 ? corner + (top + i) * stride : last;
        for (int a = 0; a < count;) {
            int target = across[a].target;
            pixel sums[ROWS] = {{0}};
            for (; a < count && across[a].target == target; a++)
                for (int i = 0; i < ROWS; i++)
                    sums[i] += *(const pixel *)(from[i] + 3L * across[a].source) * across[a].weight;
            for (int i = 0; i < ROWS; i++) /* The fourth value is the next pixel's, or the next row's. */
                *(pixel *)(out + i * line + 3L * target) = sums[i];
        }
    }
}

static int shrink_parts(const float *corner, long stride, int rows, int columns, int height, int width, float *out)
{
    long line = 3L * width, padded = 3L * width + 1, length = 3L * columns + 1;
    long whole_rows = (rows + ROWS - 1L) / ROWS * ROWS;
    part *down = malloc((rows + 2L * height + columns + 2L * width) * sizeof(part));
    float *last_row = calloc(length + whole_rows * padded, sizeof(float));
    if (down && last_row) {
        int down_count = parts_of_axis(rows, height, down);
        part *across = down + down_count;
        int across_count = parts_of_axis(columns, width, across);
        float *mixed = last_row + length;
        shrink_across(corner, stride, rows, columns, across, across_count, padded, last_row, mixed);
        for (int d = 0, last = -1; d < down_count; last = down[d++].target) {
            const float *from = mixed + down[d].source * padded;
            float *row = out + down[d].target * line, weight = down[d].weight;
            if (down[d].target != last)
                for (long i = 0; i < line; i++)
                    row[i] = from[i] * weight;
            else
                for (long i = 0; i < line; i++)
                    row[i] += from[i] * weight;
        }
    }
    int failed = !down || !last_row;
    free(down);
    free(last_row);
    return failed;
}

/* Shrink each of the boxes of an image to [height, width].
 *
 * image   float32 [image_height, image_width, 3]
 * boxes   int32 [count, 4]: x1, y1 and, exclusive, x2, y2; inside of the image, and not smaller than the target
 * out     float32 [count, height, width, 3]
 * Returns 0, or 1 if there is no memory.
 */
int facetpu_shrink(const float *image, int image_width, const int *boxes, int count, int height, int width, float *out)
{
    long stride = 3L * image_width;
    for (int box = 0; box < count; box++, boxes += 4, out += 3L * height * width) {
        int rows = boxes[3] - boxes[1], columns = boxes[2] - boxes[0];
        const float *corner = image + boxes[1] * stride + 3L * boxes[0];
        if (rows % height == 0 && columns % width == 0)
            shrink_whole(corner, stride, rows / height, columns / width, height, width, out);
        else if (shrink_parts(corner, stride, rows, columns, height, width, out))
            return 1;
    }
    return 0;
}
