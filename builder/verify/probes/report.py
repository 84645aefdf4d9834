"""Results of checks as JSON, and as JUnit XML, which GitLab shows in merge requests."""

from __future__ import annotations

from typing import Dict, List, Union
from xml.etree import ElementTree

Result = Dict[str, Union[str, float]]  # name, verdict (passed, failed or skipped), evidence, seconds


def junit(suites: Dict[str, List[Result]]) -> bytes:
    """JUnit XML (junit-4.xsd of Jenkins, which GitLab reads too): suites by name, with a case for each result."""
    everything = [each for results in suites.values() for each in results]
    root = ElementTree.Element("testsuites", dict(_totals(everything), name="builder"))
    for name, results in suites.items():
        skipped = str(sum(each["verdict"] == "skipped" for each in results))
        suite = ElementTree.SubElement(root, "testsuite", dict(_totals(results), name=name, skipped=skipped))
        for each in results:
            _add_case(suite, name, each)
    text: bytes = ElementTree.tostring(root, encoding="utf-8")
    return text


def _totals(results: List[Result]) -> Dict[str, str]:
    failures = sum(each["verdict"] == "failed" for each in results)
    seconds = "%.3f" % sum(float(each["seconds"]) for each in results)
    return {"tests": str(len(results)), "failures": str(failures), "errors": "0", "time": seconds}


def _add_case(suite: ElementTree.Element, name: str, each: Result) -> None:
    evidence = xml_text(str(each["evidence"]))
    attributes = {"name": str(each["name"]), "classname": name, "time": "%.3f" % float(each["seconds"])}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    if each["verdict"] == "failed":
        first = evidence.splitlines()[0] if evidence else ""
        ElementTree.SubElement(case, "failure", {"type": "failed", "message": first}).text = evidence
    elif each["verdict"] == "skipped":
        ElementTree.SubElement(case, "skipped").text = evidence
    else:
        ElementTree.SubElement(case, "system-out").text = evidence


def xml_text(text: str) -> str:
    """The text without characters that XML cannot have (XML 1.0, 2.2)."""
    return "".join(each if each in "\t\n" or (each >= " " and each not in "\ufffe\uffff") else "?" for each in text)
