// Has Faces.kt do all it can with what the test put into a folder, and writes what came of it there.
package facetpu

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main(arguments: Array<String>) {
    val (bundle, folder) = arguments.map(::File)
    val out = StringBuilder()
    fun open(people: String = "people.tsv") = Faces(
        bundle.resolve("recogniser.tflite").readBytes(),
        bundle.resolve("labels.txt").readLines(),
        bundle.resolve("strangers.tsv").readLines(),
        folder.resolve(people),
    )
    val faces = open()
    val bytes = faces.size * faces.size * 3
    val crops = folder.resolve("crops.bin").readBytes().asList().chunked(bytes) { it.toByteArray() }
    val rows = crops.map(faces::embed)
    folder.resolve("rows.bin").writeBytes(rows.flatMap { row -> floats(row).asList() }.toByteArray())
    out.appendLine(faces.classify(crops[0]).let { "${it.label} ${it.probability}" })
    out.appendLine("${faces.identify(rows[0]).name} ${faces.threshold()}")

    val (width, height) = folder.resolve("photo.txt").readText().trim().split(' ').map(String::toInt)
    val rgb = folder.resolve("photo.bin").readBytes()
    val pixels = IntArray(width * height) { index ->
        (0..2).fold(255) { pixel, channel -> pixel shl 8 or (rgb[index * 3 + channel].toInt() and 255) }
    }
    val cut = folder.resolve("landmarks.txt").readLines().map { line ->
        val numbers = line.split(' ').map(String::toDouble)
        align(Photo(pixels, width, height), Array(5) { doubleArrayOf(numbers[2 * it], numbers[2 * it + 1]) }, faces.size)
    }
    folder.resolve("aligned.bin").writeBytes(cut.flatMap { it.asList() }.toByteArray())

    listOf("one", "bøb", "eve").forEachIndexed { number, name -> faces.enrol(name, rows.subList(3 * number, 3 * number + 3)) }
    out.appendLine("${faces.threshold()} ${open().threshold()}")
    rows.forEach { row -> faces.identify(row).let { out.appendLine("${it.name} ${it.cosine}") } }
    faces.erase("bøb")
    out.appendLine(open().people.joinToString(" "))
    out.appendLine(refusal { faces.enrol("a\tb", listOf()) })
    out.appendLine(refusal { faces.erase("bøb") })
    out.appendLine(refusal { faces.embed(ByteArray(3)) })
    val people = folder.resolve("people.tsv")
    people.writeText("another\n" + people.readLines().drop(1).joinToString("\n"))
    out.appendLine(refusal { open() })
    people.writeText("")
    out.appendLine(refusal { open() })
    val nowhere = open("nowhere/people.tsv")
    out.appendLine("${runCatching { nowhere.enrol("one", rows) }.isFailure} ${nowhere.people.size}")
    folder.resolve("out.txt").writeText(out.toString())
}

private fun refusal(action: () -> Unit): String =
    try {
        action().let { "done" }
    } catch (error: IllegalArgumentException) {
        error.message!!
    }

private fun floats(row: FloatArray): ByteArray {
    val bytes = ByteBuffer.allocate(row.size * 4).order(ByteOrder.LITTLE_ENDIAN)
    row.forEach(bytes::putFloat)
    return bytes.array()
}
