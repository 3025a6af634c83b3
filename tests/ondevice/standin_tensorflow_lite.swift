// A stand-in for TensorFlowLiteSwift: those of its types and methods that Faces.swift uses, with the same
// signatures. The model runs in the test, which is at the other end of standard input and output.

import Foundation

public struct QuantizationParameters {
  public let scale: Float
  public let zeroPoint: Int
}

public struct Tensor {
  public struct Shape {
    public let dimensions: [Int]
  }

  public let shape: Shape
  public let data: Data
  public let quantizationParameters: QuantizationParameters?
}

public final class Interpreter {
  public struct Options {
    public var threadCount: Int?
    public var isXNNPackEnabled = false
    public init() {}
  }

  private let side: Int
  private var outputs: [Tensor] = []
  private var image = Data()
  private var allocated = false

  public init(modelPath: String, options: Options? = nil) throws {
    let model = try Data(contentsOf: URL(fileURLWithPath: modelPath))
    say("M", number(model.count) + model)
    side = Int(hear())
    for _ in 0..<2 {
      let bytes = Int(hear())
      let form = QuantizationParameters(scale: Float(bitPattern: hear()), zeroPoint: Int(hear()))
      let shape = Tensor.Shape(dimensions: [])
      outputs.append(Tensor(shape: shape, data: Data(count: bytes), quantizationParameters: form))
    }
  }

  public func allocateTensors() throws {
    allocated = true
  }

  public func input(at index: Int) throws -> Tensor {
    precondition(index == 0 && allocated)
    let shape = Tensor.Shape(dimensions: [1, side, side, 3])
    return Tensor(shape: shape, data: image, quantizationParameters: nil)
  }

  @discardableResult
  public func copy(_ data: Data, toInputAt index: Int) throws -> Tensor {
    precondition(data.count == side * side * 3)
    image = data
    return try input(at: index)
  }

  public func invoke() throws {
    say("R", image)
    outputs = outputs.map { tensor in
      let data = read(tensor.data.count)
      return Tensor(shape: tensor.shape, data: data, quantizationParameters: tensor.quantizationParameters)
    }
  }

  public func output(at index: Int) throws -> Tensor {
    outputs[index]
  }
}

private func say(_ command: String, _ data: Data) {
  FileHandle.standardOutput.write(Data(command.utf8) + data)
}

private func read(_ count: Int) -> Data {
  var data = Data()
  while data.count < count { data += FileHandle.standardInput.readData(ofLength: count - data.count) }
  return data
}

/// Four bytes, the highest first.
private func hear() -> UInt32 {
  read(4).reduce(0) { $0 << 8 | UInt32($1) }
}

private func number(_ value: Int) -> Data {
  Data([24, 16, 8, 0].map { UInt8(value >> $0 & 255) })
}
