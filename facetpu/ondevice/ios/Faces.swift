// Tell who is in a photo, on an iPhone, offline. In the app's Podfile:
//
//     use_frameworks!
//     pod 'TensorFlowLiteSwift', '~> 2.17'
//
// Add recogniser.tflite, labels.txt, strangers.tsv and this file to the app. Then, on iOS 16 or later:
//
//     let folder = Bundle.main.resourceURL!
//     let people = URL.documentsDirectory.appending(path: "people.tsv")
//     let faces = try Faces(folder: folder, people: people)
//     let crop = align(photo, landmarks: landmarks, size: faces.size)
//     try faces.enrol("alice", [try faces.embed(crop)])
//     let match = faces.identify(try faces.embed(crop))  // match.name is nil for a stranger
//
// with the pixels of a CGImage as `photo`:
//
//     var photo = Photo(width: image.width, height: image.height)
//     photo.rgba.withUnsafeMutableBytes {
//       CGContext(data: $0.baseAddress, width: image.width, height: image.height, bitsPerComponent: 8,
//                 bytesPerRow: image.width * 4, space: CGColorSpace(name: CGColorSpace.sRGB)!,
//                 bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
//         .draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
//     }
//
// The landmarks are five points (x, y) in pixels from the upper left: left eye, right eye, nose, left and right
// corner of the mouth, left as one sees it. Any face detector with landmarks gives them, Apple's Vision for one;
// so do the networks in detector/. The people are kept as embeddings, not as pictures. One thread at a time.

import Foundation
import TensorFlowLite

/// The share of strangers who may be taken for somebody.
let falseAccepts = 0.01

private let fewestStrangers = 10

/// Left eye, right eye, nose, left and right corner of the mouth in a crop of 112 pixels.
private let referenceLandmarks: [(Double, Double)] = [
  (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041),
]

/// An image: red, green, blue and one byte that is not looked at, of each pixel from the upper left on.
struct Photo {
  let width: Int
  let height: Int
  var rgba: [UInt8]

  init(width: Int, height: Int) {
    self.width = width
    self.height = height
    rgba = [UInt8](repeating: 0, count: width * height * 4)
  }
}

struct FacesError: LocalizedError {
  let errorDescription: String?
}

/// Knows people by their faces.
final class Faces {
  /// The side of a crop in pixels.
  let size: Int

  /// Of each person's name the embeddings of their faces.
  private(set) var people: [String: [[Float]]] = [:]

  private let interpreter: Interpreter
  private let labels: [String]
  private let header: String
  private let strangers: [(name: String, face: [Float])]
  private let file: URL

  /// Open the model in `folder`, and the file of `people`, which need not be there yet.
  init(folder: URL, people file: URL) throws {
    var options = Interpreter.Options()
    options.threadCount = 4
    options.isXNNPackEnabled = true  // the kernels that facetpu set the model's threshold with
    interpreter = try Interpreter(
      modelPath: folder.appendingPathComponent("recogniser.tflite").path, options: options)
    try interpreter.allocateTensors()
    size = try interpreter.input(at: 0).shape.dimensions[1]
    labels = try lines(of: folder.appendingPathComponent("labels.txt"))
    let table = try lines(of: folder.appendingPathComponent("strangers.tsv"))
    header = table[0]
    strangers = table.dropFirst().map(decoded)
    self.file = file
    if FileManager.default.fileExists(atPath: file.path) {
      let known = try lines(of: file)
      guard !known.isEmpty else {
        throw FacesError(errorDescription: "\(file.path): is empty; delete it and enrol everybody again")
      }
      guard known.first == header else {
        throw FacesError(errorDescription: "\(file.path): is of another model; enrol everybody again")
      }
      for (name, face) in known.dropFirst().map(decoded) { people[name, default: []].append(face) }
    }
  }

  /// The embedding of a face, of length 1; `crop` is red, green, blue of each pixel.
  func embed(_ crop: [UInt8]) throws -> [Float] {
    unit(try run(crop, output: 1))
  }

  /// Who of the people that the model was trained on it is; a stranger looks like one of them too.
  func classify(_ crop: [UInt8]) throws -> (label: String, probability: Double) {
    let probabilities = try run(crop, output: 0)
    let best = probabilities.indices.max { probabilities[$0] < probabilities[$1] }!
    return (labels[best], Double(probabilities[best]))
  }

  /// Whose face an embedding is, nil for a stranger's; and the cosine to the nearest person.
  func identify(_ embedding: [Float]) -> (name: String?, cosine: Double) {
    let cosines = people.mapValues { dot(mean($0), embedding) }
    guard let nearest = cosines.max(by: { $0.value < $1.value }) else { return (nil, 0) }
    return (nearest.value >= threshold() ? nearest.key : nil, nearest.value)
  }

  /// The cosine that `falseAccepts` of the strangers reach: the more people, the higher it must be.
  func threshold() -> Double {
    let others = strangers.filter { people[$0.name] == nil }
    if people.isEmpty || others.count < fewestStrangers {
      return Double(header.split(separator: " ").last!)!  // of two faces
    }
    let means = people.values.map(mean)
    let scores = others.map { other in means.map { dot($0, other.face) }.max()! }.sorted(by: >)
    let passing = Int(falseAccepts * Double(scores.count) + 1e-9)
    var asked: Double
    if passing > 0 {
      asked = (scores[passing - 1] + scores[passing]) / 2
    } else {  // too few to see one in so many: the tail of a Gumbel distribution
      let average = scores.reduce(0, +) / Double(scores.count)
      let variance = scores.map { ($0 - average) * ($0 - average) }.reduce(0, +) / Double(scores.count)
      let scale = (variance * 6).squareRoot() / Double.pi
      asked = average - 0.5772156649015329 * scale - scale * log(-log1p(-falseAccepts))
    }
    asked = max(asked, scores[passing] + 1e-7)
    return min(asked, 1)
  }

  /// Add faces of a person, who may be new.
  func enrol(_ name: String, _ embeddings: [[Float]]) throws {
    guard !name.isEmpty, name.rangeOfCharacter(from: .controlCharacters) == nil else {
      throw FacesError(errorDescription: "'\(name)' is no name")
    }
    try keep(people.merging([name: embeddings], uniquingKeysWith: +))
  }

  /// Forget a person.
  func erase(_ name: String) throws {
    guard people[name] != nil else {
      throw FacesError(errorDescription: "nobody is called '\(name)'")
    }
    try keep(people.filter { $0.key != name })
  }

  /// One of the two outputs, 0 the probabilities and 1 the embedding, in real numbers.
  private func run(_ crop: [UInt8], output: Int) throws -> [Float] {
    guard crop.count == size * size * 3 else {
      throw FacesError(errorDescription: "a crop has \(size) x \(size) pixels of 3 bytes")
    }
    try interpreter.copy(Data(crop), toInputAt: 0)
    try interpreter.invoke()
    let tensor = try interpreter.output(at: output)
    let form = tensor.quantizationParameters!
    return tensor.data.map { Float(Int($0) - form.zeroPoint) * form.scale }
  }

  /// Write `people` down; then they are those who are known.
  private func keep(_ people: [String: [[Float]]]) throws {
    let table = people.sorted { $0.key < $1.key }.flatMap { person in
      person.value.map { "\(person.key)\t\(encoded($0))" }
    }
    let text = ([header] + table).joined(separator: "\n") + "\n"
    try Data(text.utf8).write(to: file, options: .atomic)  // whole or not at all
    self.people = people
  }
}

/// The crop of a face by its landmarks, turned, scaled and shifted into place: red, green, blue of each pixel.
func align(_ photo: Photo, landmarks: [(x: Double, y: Double)], size: Int) -> [UInt8] {
  // The similarity q = a p + b in complex numbers that brings the landmarks nearest: least squares.
  let scale = Double(size) / 112
  let there = referenceLandmarks.map { (x: $0.0 * scale, y: $0.1 * scale) }
  let (px, py) = centre(landmarks)
  let (qx, qy) = centre(there)
  var (real, imaginary, length) = (0.0, 0.0, 0.0)
  for (point, target) in zip(landmarks, there) {
    let (x, y) = (point.x - px, point.y - py)
    real += x * target.x + y * target.y
    imaginary += x * target.y - y * target.x
    length += x * x + y * y
  }
  real /= length
  imaginary /= length
  let norm = real * real + imaginary * imaginary
  let shift = (x: qx - real * px + imaginary * py, y: qy - imaginary * px - real * py)
  func inPhoto(_ column: Int, _ row: Int) -> (x: Double, y: Double) {
    let (x, y) = (Double(column) - shift.x, Double(row) - shift.y)
    return ((real * x + imaginary * y) / norm, (real * y - imaginary * x) / norm)
  }

  // What shrinks to less than a half is averaged first, in squares of step x step pixels.
  let step = max(Int(1 / norm.squareRoot()), 1)
  let corners = [inPhoto(0, 0), inPhoto(size, 0), inPhoto(0, size), inPhoto(size, size)]
  let left = Int(corners.map(\.x).min()!.rounded(.down)) - 2 * step
  let top = Int(corners.map(\.y).min()!.rounded(.down)) - 2 * step
  let columns = (Int(corners.map(\.x).max()!.rounded(.up)) + 2 * step - left) / step
  let rows = (Int(corners.map(\.y).max()!.rounded(.up)) + 2 * step - top) / step
  var means = [Float](repeating: 0, count: columns * rows * 3)
  for y in overlap(top, rows * step, photo.height) {
    for x in overlap(left, columns * step, photo.width) {  // black beyond the photo
      let to = ((y - top) / step * columns + (x - left) / step) * 3
      let from = (y * photo.width + x) * 4
      for channel in 0..<3 { means[to + channel] += Float(photo.rgba[from + channel]) / Float(step * step) }
    }
  }
  var crop = [UInt8](repeating: 0, count: size * size * 3)
  for y in 0..<size {
    for x in 0..<size {
      let point = inPhoto(x, y)
      let column = (point.x + 0.5 - Double(left)) / Double(step) - 0.5
      let row = (point.y + 0.5 - Double(top)) / Double(step) - 0.5
      let across = Float(column - column.rounded(.down))
      let down = Float(row - row.rounded(.down))
      let corner = (Int(row.rounded(.down)) * columns + Int(column.rounded(.down))) * 3
      for channel in 0..<3 {
        let upper = mix(means[corner + channel], means[corner + channel + 3], across)
        let below = corner + columns * 3 + channel
        let lower = mix(means[below], means[below + 3], across)
        crop[(y * size + x) * 3 + channel] = UInt8(mix(upper, lower, down) + 0.5)
      }
    }
  }
  return crop
}

private func centre(_ points: [(x: Double, y: Double)]) -> (Double, Double) {
  (points.map(\.x).reduce(0, +) / 5, points.map(\.y).reduce(0, +) / 5)
}

/// The pixels from `start` on, `count` of them, that lie on a side of `side` pixels.
private func overlap(_ start: Int, _ count: Int, _ side: Int) -> Range<Int> {
  let low = min(max(start, 0), side)
  return low..<max(min(start + count, side), low)
}

private func mix(_ first: Float, _ second: Float, _ share: Float) -> Float {
  first + (second - first) * share
}

private func dot(_ one: [Float], _ other: [Float]) -> Double {
  zip(one, other).reduce(0) { $0 + Double($1.0 * $1.1) }
}

private func unit(_ row: [Float]) -> [Float] {
  let length = Float(dot(row, row).squareRoot())
  return row.map { $0 / length }
}

private func mean(_ faces: [[Float]]) -> [Float] {
  unit(faces[0].indices.map { index in faces.reduce(0) { $0 + $1[index] } })
}

private func lines(of file: URL) throws -> [String] {
  try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init)
}

/// A line of a table: a name, a tab, and the embedding as little-endian floats in base64.
private func decoded(_ line: String) -> (name: String, face: [Float]) {
  let parts = line.split(separator: "\t")
  let data = Data(base64Encoded: String(parts[1]))!
  var face = [Float](repeating: 0, count: data.count / 4)
  _ = face.withUnsafeMutableBytes { data.copyBytes(to: $0) }
  return (String(parts[0]), face)
}

private func encoded(_ face: [Float]) -> String {
  face.withUnsafeBytes { Data($0) }.base64EncodedString()
}
