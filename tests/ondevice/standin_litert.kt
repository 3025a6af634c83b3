// A stand-in for LiteRT's Java interface: those of its classes and methods that Faces.kt calls, with the same
// types. The model runs in the test, which is at the other end of standard input and output.
package org.tensorflow.lite

import java.io.DataInputStream
import java.io.DataOutputStream
import java.nio.ByteBuffer

class Tensor internal constructor(
    private val shape: IntArray,
    private val bytes: Int,
    private val scale: Float,
    private val zeroPoint: Int,
) {
    class QuantizationParams(val scale: Float, val zeroPoint: Int)

    fun shape() = shape

    fun numBytes() = bytes

    fun quantizationParams() = QuantizationParams(scale, zeroPoint)
}

class Interpreter(model: ByteBuffer, options: Options) : AutoCloseable {
    class Options {
        fun setNumThreads(count: Int): Options {
            require(count > 0)
            return this
        }
    }

    private val input = DataInputStream(System.`in`)
    private val output = DataOutputStream(System.out)
    private val tensors: List<Tensor>

    init {
        require(model.isDirect) { "LiteRT takes direct buffers only" }
        val bytes = ByteArray(model.capacity()) { model.get(it) }
        output.writeByte('M'.code)
        output.writeInt(bytes.size)
        output.write(bytes)
        output.flush()
        val side = input.readInt()
        val outputs = List(2) { Tensor(intArrayOf(), input.readInt(), input.readFloat(), input.readInt()) }
        tensors = listOf(Tensor(intArrayOf(1, side, side, 3), side * side * 3, 0f, 0)) + outputs
    }

    fun getInputTensor(index: Int) = tensors.take(1)[index]

    fun getOutputTensor(index: Int) = tensors.drop(1)[index]

    fun runForMultipleInputsOutputs(inputs: Array<Any>, outputs: Map<Int, Any>) {
        val image = inputs.single() as ByteBuffer
        require(image.remaining() == tensors[0].numBytes()) { "the buffer is not at its beginning" }
        output.writeByte('R'.code)
        output.write(ByteArray(image.remaining()) { image.get(it) })
        output.flush()
        for (index in 0..1) {
            val bytes = ByteArray(getOutputTensor(index).numBytes()).also(input::readFully)
            (outputs[index] as ByteBuffer).put(bytes)
        }
    }

    override fun close() = Unit
}
