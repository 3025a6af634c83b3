/*
 * Tell who is in a photo, on an Android phone, offline. In the app's build.gradle.kts:
 *
 *     dependencies { implementation("com.google.ai.edge.litert:litert:2.1.5") }
 *
 * Put recogniser.tflite, labels.txt and strangers.tsv into the app's assets, and this file beside its code.
 * Android 8 or later. Then, in an activity:
 *
 *     val faces = Faces(
 *         assets.open("recogniser.tflite").use { it.readBytes() },
 *         assets.open("labels.txt").bufferedReader().use { it.readLines() },
 *         assets.open("strangers.tsv").bufferedReader().use { it.readLines() },
 *         File(filesDir, "people.tsv"),
 *     )
 *     val pixels = IntArray(bitmap.width * bitmap.height)
 *     bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
 *     val crop = align(Photo(pixels, bitmap.width, bitmap.height), landmarks, faces.size)
 *     faces.enrol("alice", listOf(faces.embed(crop)))
 *     val match = faces.identify(faces.embed(crop)) // match.name is null for a stranger
 *
 * The landmarks are five points in pixels: left eye, right eye, nose, left and right corner of the mouth, left
 * as one sees it. Any face detector with landmarks gives them, ML Kit's for one; so do the networks in detector/.
 * The people are kept as embeddings, not as pictures. One thread at a time.
 */
package facetpu

import java.io.File
import java.io.FileOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Base64
import kotlin.math.PI
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.hypot
import kotlin.math.ln
import kotlin.math.ln1p
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt
import org.tensorflow.lite.Interpreter

/** The share of strangers who may be taken for somebody. */
const val FALSE_ACCEPTS = 0.01

private const val FEWEST_STRANGERS = 10

/** Left eye, right eye, nose, left and right corner of the mouth in a crop of 112 pixels. */
private val LANDMARKS = arrayOf(
    doubleArrayOf(38.2946, 51.6963),
    doubleArrayOf(73.5318, 51.5014),
    doubleArrayOf(56.0252, 71.7366),
    doubleArrayOf(41.5493, 92.3655),
    doubleArrayOf(70.7299, 92.2041),
)

/** An image: 0xAARRGGBB from the upper left on, as Bitmap.getPixels gives it. */
class Photo(val pixels: IntArray, val width: Int, val height: Int)

/** Whose face it is, null for a stranger; and the cosine to the nearest person. */
data class Match(val name: String?, val cosine: Double)

/** A label of the model and how likely it is. */
data class Guess(val label: String, val probability: Double)

/** Knows people by their faces; [file] keeps them. */
class Faces(
    model: ByteArray,
    private val labels: List<String>,
    strangers: List<String>,
    private val file: File,
) : AutoCloseable {
    private val interpreter = Interpreter(
        ByteBuffer.allocateDirect(model.size).order(ByteOrder.nativeOrder()).put(model),
        Interpreter.Options().setNumThreads(4),
    )

    /** The side of a crop in pixels. */
    val size = interpreter.getInputTensor(0).shape()[1]

    private val header = strangers.first()
    private val others = strangers.drop(1).map(::decoded)
    private var known: Map<String, List<FloatArray>>

    /** The names of those who are enrolled. */
    val people: Set<String> get() = known.keys

    init {
        val lines = if (file.exists()) file.readLines() else listOf(header)
        require(lines.isNotEmpty()) { "$file: is empty; delete it and enrol everybody again" }
        require(lines.first() == header) { "$file: is of another model; enrol everybody again" }
        known = lines.drop(1).map(::decoded).groupBy({ it.first }, { it.second })
    }

    /** The embedding of a face, of length 1; [crop] is red, green, blue of each pixel. */
    fun embed(crop: ByteArray): FloatArray = unit(run(crop, 1))

    /** Who of the people that the model was trained on it is; a stranger looks like one of them too. */
    fun classify(crop: ByteArray): Guess {
        val probabilities = run(crop, 0)
        val best = probabilities.indices.maxByOrNull { probabilities[it] }!!
        return Guess(labels[best], probabilities[best].toDouble())
    }

    /** Whose face an embedding is. */
    fun identify(embedding: FloatArray): Match {
        val cosines = known.mapValues { (_, faces) -> dot(mean(faces), embedding) }
        val nearest = cosines.maxByOrNull { it.value } ?: return Match(null, 0.0)
        return Match(nearest.key.takeIf { nearest.value >= threshold() }, nearest.value)
    }

    /** The cosine that [FALSE_ACCEPTS] of the strangers reach: the more people, the higher it must be. */
    fun threshold(): Double {
        val strangers = others.filter { it.first !in known }
        if (known.isEmpty() || strangers.size < FEWEST_STRANGERS) return header.substringAfterLast(' ').toDouble()
        val means = known.values.map(::mean)
        val scores = strangers.map { (_, face) -> means.maxOf { dot(it, face) } }.sortedDescending()
        val passing = (FALSE_ACCEPTS * scores.size + 1e-9).toInt()
        val asked = if (passing > 0) {
            (scores[passing - 1] + scores[passing]) / 2
        } else { // too few to see one in so many: the tail of a Gumbel distribution
            val average = scores.average()
            val scale = sqrt(scores.sumOf { (it - average) * (it - average) } / scores.size) * sqrt(6.0) / PI
            average - 0.5772156649015329 * scale - scale * ln(-ln1p(-FALSE_ACCEPTS))
        }
        return min(max(asked, scores[passing] + 1e-7), 1.0)
    }

    /** Add faces of a person, who may be new. */
    fun enrol(name: String, embeddings: List<FloatArray>) {
        require(name.isNotBlank() && name.none(Char::isISOControl)) { "'$name' is no name" }
        keep(known + (name to known[name].orEmpty() + embeddings))
    }

    /** Forget a person. */
    fun erase(name: String) {
        require(name in known) { "nobody is called '$name'" }
        keep(known - name)
    }

    override fun close() = interpreter.close()

    /** One of the two outputs, 0 the probabilities and 1 the embedding, in real numbers. */
    private fun run(crop: ByteArray, output: Int): FloatArray {
        require(crop.size == size * size * 3) { "a crop has $size x $size pixels of 3 bytes" }
        val image = ByteBuffer.allocateDirect(crop.size).order(ByteOrder.nativeOrder()).put(crop)
        image.rewind()
        val rows = List(2) { ByteBuffer.allocateDirect(interpreter.getOutputTensor(it).numBytes()) }
        interpreter.runForMultipleInputsOutputs(arrayOf<Any>(image), mapOf<Int, Any>(0 to rows[0], 1 to rows[1]))
        val form = interpreter.getOutputTensor(output).quantizationParams()
        val row = rows[output]
        return FloatArray(row.capacity()) { ((row.get(it).toInt() and 255) - form.zeroPoint) * form.scale }
    }

    /** Write [people] down; then they are those who are known. */
    private fun keep(people: Map<String, List<FloatArray>>) {
        val lines = people.flatMap { (name, faces) -> faces.map { "$name\t${encoded(it)}" } }
        val new = File(file.path + ".new")
        FileOutputStream(new).use {
            it.write((listOf(header) + lines).joinToString("\n", postfix = "\n").toByteArray())
            it.fd.sync()
        }
        check(new.renameTo(file)) { "$file: cannot be written" } // whole or not at all
        known = people
    }
}

/** The crop of a face by its [landmarks], turned, scaled and shifted into place: red, green, blue of each pixel. */
fun align(photo: Photo, landmarks: Array<DoubleArray>, size: Int): ByteArray {
    // The similarity q = a p + b in complex numbers that brings the landmarks nearest: least squares.
    val there = LANDMARKS.map { (x, y) -> doubleArrayOf(x * size / 112, y * size / 112) }
    val (px, py) = List(2) { axis -> landmarks.sumOf { it[axis] } / 5 }
    val (qx, qy) = List(2) { axis -> there.sumOf { it[axis] } / 5 }
    var real = 0.0
    var imaginary = 0.0
    var length = 0.0
    for ((point, target) in landmarks.zip(there)) {
        val (x, y) = point[0] - px to point[1] - py
        real += x * target[0] + y * target[1]
        imaginary += x * target[1] - y * target[0]
        length += x * x + y * y
    }
    real /= length
    imaginary /= length
    val norm = real * real + imaginary * imaginary
    val shiftX = qx - real * px + imaginary * py
    val shiftY = qy - imaginary * px - real * py
    fun photoX(x: Int, y: Int) = (real * (x - shiftX) + imaginary * (y - shiftY)) / norm
    fun photoY(x: Int, y: Int) = (real * (y - shiftY) - imaginary * (x - shiftX)) / norm

    // What shrinks to less than a half is averaged first, in squares of step x step pixels.
    val step = max((1 / hypot(real, imaginary)).toInt(), 1)
    val corners = listOf(0 to 0, size to 0, 0 to size, size to size)
    val left = floor(corners.minOf { (x, y) -> photoX(x, y) }).toInt() - 2 * step
    val top = floor(corners.minOf { (x, y) -> photoY(x, y) }).toInt() - 2 * step
    val right = ceil(corners.maxOf { (x, y) -> photoX(x, y) }).toInt() + 2 * step
    val bottom = ceil(corners.maxOf { (x, y) -> photoY(x, y) }).toInt() + 2 * step
    val columns = (right - left) / step
    val means = FloatArray(columns * ((bottom - top) / step) * 3)
    for (y in max(top, 0) until min(top + (bottom - top) / step * step, photo.height)) {
        for (x in max(left, 0) until min(left + columns * step, photo.width)) { // black beyond the photo
            val pixel = photo.pixels[y * photo.width + x]
            val to = ((y - top) / step * columns + (x - left) / step) * 3
            for (channel in 0..2) means[to + channel] += (pixel shr (16 - 8 * channel) and 255) / (step * step).toFloat()
        }
    }
    val crop = ByteArray(size * size * 3)
    for (y in 0 until size) for (x in 0 until size) {
        val column = (photoX(x, y) + 0.5 - left) / step - 0.5
        val row = (photoY(x, y) + 0.5 - top) / step - 0.5
        val across = (column - floor(column)).toFloat()
        val down = (row - floor(row)).toFloat()
        val corner = (floor(row).toInt() * columns + floor(column).toInt()) * 3
        for (channel in 0..2) {
            val upper = mix(means[corner + channel], means[corner + channel + 3], across)
            val below = corner + columns * 3 + channel
            val lower = mix(means[below], means[below + 3], across)
            crop[(y * size + x) * 3 + channel] = (mix(upper, lower, down) + 0.5f).toInt().toByte()
        }
    }
    return crop
}

private fun mix(first: Float, second: Float, share: Float) = first + (second - first) * share

private fun dot(one: FloatArray, other: FloatArray) = one.indices.sumOf { (one[it] * other[it]).toDouble() }

private fun unit(row: FloatArray): FloatArray {
    val length = sqrt(dot(row, row)).toFloat()
    return FloatArray(row.size) { row[it] / length }
}

private fun mean(faces: List<FloatArray>) = unit(FloatArray(faces[0].size) { i -> faces.sumOf { it[i].toDouble() }.toFloat() })

/** A line of a table: a name, a tab, and the embedding as little-endian floats in base64. */
private fun decoded(line: String): Pair<String, FloatArray> {
    val (name, code) = line.split('\t')
    val floats = ByteBuffer.wrap(Base64.getDecoder().decode(code)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return name to FloatArray(floats.remaining(), floats::get)
}

private fun encoded(face: FloatArray): String {
    val bytes = ByteBuffer.allocate(face.size * 4).order(ByteOrder.LITTLE_ENDIAN)
    face.forEach(bytes::putFloat)
    return Base64.getEncoder().encodeToString(bytes.array())
}
