// Has Faces.swift do all it can with what the test put into a folder, and writes what came of it there.

import Foundation

let bundle = URL(fileURLWithPath: CommandLine.arguments[1])
let folder = URL(fileURLWithPath: CommandLine.arguments[2])
var out: [String] = []

func open(_ people: String = "people.tsv") throws -> Faces {
  try Faces(folder: bundle, people: folder.appendingPathComponent(people))
}

func bytes(_ name: String) throws -> [UInt8] {
  [UInt8](try Data(contentsOf: folder.appendingPathComponent(name)))
}

func text(_ name: String) throws -> String {
  try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)
}

func put(_ name: String, _ data: Data) throws {
  try data.write(to: folder.appendingPathComponent(name))
}

func refusal(_ action: () throws -> Void) -> String {
  do {
    try action()
    return "done"
  } catch {
    return (error as! FacesError).errorDescription!
  }
}

let faces = try open()
let size = faces.size * faces.size * 3
let all = try bytes("crops.bin")
let crops = stride(from: 0, to: all.count, by: size).map { Array(all[$0..<$0 + size]) }
let rows = try crops.map(faces.embed)
try put("rows.bin", rows.reduce(Data()) { data, row in data + row.withUnsafeBytes { Data($0) } })
let guess = try faces.classify(crops[0])
out.append("\(guess.label) \(guess.probability)")
out.append("\(faces.identify(rows[0]).name ?? "null") \(faces.threshold())")

let sides = try text("photo.txt").split(separator: " ").map { Int($0.trimmingCharacters(in: .whitespacesAndNewlines))! }
let rgb = try bytes("photo.bin")
var photo = Photo(width: sides[0], height: sides[1])
for pixel in 0..<sides[0] * sides[1] {
  for channel in 0..<3 { photo.rgba[pixel * 4 + channel] = rgb[pixel * 3 + channel] }
}
var aligned = Data()
for line in try text("landmarks.txt").split(separator: "\n") {
  let numbers = line.split(separator: " ").map { Double($0)! }
  let landmarks = (0..<5).map { (x: numbers[2 * $0], y: numbers[2 * $0 + 1]) }
  aligned += align(photo, landmarks: landmarks, size: faces.size)
}
try put("aligned.bin", aligned)

for (number, name) in ["one", "bøb", "eve"].enumerated() {
  try faces.enrol(name, Array(rows[3 * number..<3 * number + 3]))
}
out.append("\(faces.threshold()) \(try open().threshold())")
for row in rows {
  let match = faces.identify(row)
  out.append("\(match.name ?? "null") \(match.cosine)")
}
try faces.erase("bøb")
out.append(try open().people.keys.sorted(by: >).joined(separator: " "))
out.append(refusal { try faces.enrol("a\tb", []) })
out.append(refusal { try faces.erase("bøb") })
out.append(refusal { _ = try faces.embed([1, 2, 3]) })
let table = try text("people.tsv").split(separator: "\n").dropFirst()
try put("people.tsv", Data((["another"] + table.map(String.init)).joined(separator: "\n").utf8))
out.append(refusal { _ = try open() })
try put("people.tsv", Data())
out.append(refusal { _ = try open() })
let nowhere = try open("nowhere/people.tsv")
let failed = (try? nowhere.enrol("one", rows)) == nil
out.append("\(failed) \(nowhere.people.count)")
try put("out.txt", Data((out.joined(separator: "\n") + "\n").utf8))
