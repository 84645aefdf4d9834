"""Results of checks as JSON, and as JUnit XML, which GitLab shows in merge requests."""

from __future__ import annotations

from typing import Dict, List, Union
from xml.etree import ElementTree

Result = Dict[str, Union[str, float]]  # name, verdict (passed, failed or skipped), evidence, seconds


def junit(image: str, results: List[Result]) -> bytes:
    """JUnit XML (junit-4.xsd of Jenkins, which GitLab reads too): one suite, with a case for each check."""
    counts = {verdict: sum(each["verdict"] == verdict for each in results) for verdict in ("failed", "skipped")}
    seconds = "%.3f" % sum(float(each["seconds"]) for each in results)
    totals = {"tests": str(len(results)), "failures": str(counts["failed"]), "errors": "0", "time": seconds}
    suites = ElementTree.Element("testsuites", dict(totals, name="builder"))
    suite = ElementTree.SubElement(suites, "testsuite", dict(totals, name=image, skipped=str(counts["skipped"])))
    for each in results:
        name, evidence = str(each["name"]), xml_text(str(each["evidence"]))
        attributes = {"name": name, "classname": image, "time": "%.3f" % float(each["seconds"])}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if each["verdict"] == "failed":
            first = evidence.splitlines()[0] if evidence else ""
            ElementTree.SubElement(case, "failure", {"type": "failed", "message": first}).text = evidence
        elif each["verdict"] == "skipped":
            ElementTree.SubElement(case, "skipped").text = evidence
        else:
            ElementTree.SubElement(case, "system-out").text = evidence
    text: bytes = ElementTree.tostring(suites, encoding="utf-8")
    return text


def xml_text(text: str) -> str:
    """The text without characters that XML cannot have (XML 1.0, 2.2)."""
    return "".join(each if each in "\t\n" or (each >= " " and each not in "\ufffe\uffff") else "?" for each in text)
