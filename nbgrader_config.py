# For `nbgrader` and formgrader in this folder; `visdial-lab release` reads it too.
c = get_config()  # noqa: F821 (nbgrader defines it)

c.CourseDirectory.course_id = "visdial-lab"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "assignments"
# nbgrader copies whatever else lies beside a notebook: the tests must not go out with it
c.CourseDirectory.ignore = [".*", "__pycache__", "*.pyc", "hidden.py", "mutants.py", "README.md"]

c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
c.ClearSolutions.text_stub = "*Write your answer here.*"
